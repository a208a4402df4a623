"""Code that runs ON Ray: shipped with every job as a zip, so it imports nothing else of celray.

Some modules are the exception to "no worker ever imports it", and use the standard library alone:
:mod:`protocol` (what a job and its submitter say to each other), :mod:`inputs.sources` (which files
a ``dataset_path`` means), :mod:`prediction.batches` and :mod:`model.signature` (which rows a model
takes), and :mod:`registry.change`. Both sides must agree on these, so they exist once.
"""

# Here, so that a job can send its first record before it imports anything.
# Unlikely in anybody's own output, and still readable by a person who looks at the log.
MARKER = "@@celray "
