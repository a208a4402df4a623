"""Code that runs ON Ray: shipped with every job as a zip, so it imports nothing else of celray.

Two modules are the exception to "no worker ever imports it", and use the standard library
alone: :mod:`protocol` (what a job and its submitter say to each other) and :mod:`sources`
(which files a ``dataset_path`` means). Both sides must agree on these, so they exist once.
"""
