"""The code that runs on Ray: sent with every job as a zip, so it imports nothing else of celray.

Workers import only a few of its modules, and these use the standard library alone: :mod:`protocol`
(the messages between a job and its submitter), :mod:`inputs.sources` (the files of a
``dataset_path``), :mod:`prediction.batches` and :mod:`model.signature` (the rows that a model
accepts), and :mod:`registry.change`. Worker and job must agree on these, so each exists once.
"""

# Defined here, so that a job can send its first record before it imports anything. It is unlikely
# in other output, and readable for a person who looks at the log.
MARKER = "@@celray "
