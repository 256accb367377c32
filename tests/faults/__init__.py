"""What becomes of an import when something fails that nobody watches.

Each failure is a real one: processes are killed, servers die or fill their disks, connections are
cut, files change while they are read. Each test then looks for the same three things: the exit
status says what happened, what was called stored is stored, and the next import completes the work
so that the rows are those of one that nothing disturbed.

    python -m pytest -m faults                       # the short form, also part of every run
    TAPES_FAULT_KILLS=60 python -m pytest -m faults  # a longer one

How much is tried:

TAPES_FAULT_KILLS   how often an importer is killed (12; for a long form 50 or more)
TAPES_FAULT_CUTS    imports through a proxy that cuts connections (2; for a long form 10 or more)
TAPES_FAULT_SEED    another number makes other random choices (0)

And of the tests of checkpoints, `tests/integration/test_checkpoint_law.py` and
`test_checkpoints.py`:

TAPES_FAULT_EXAMPLES  sequences of operations on a folder (15; for a long form 200 or more)
TAPES_FAULT_FILES     unchanged files to be passed over (2,000; for a long form 10,000)

Disks of their own need root, and leave to mount; where that is missing, these tests are skipped.
"""
