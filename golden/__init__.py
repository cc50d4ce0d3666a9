"""The bit-accurate model of the throttle, and around it the training harness, the credit methods and the protocol.

It needs numpy alone; the digits come with scikit-learn, which is looked for when they are asked for. Nothing here draws, and the
unit (the files of this folder) knows none of the rooms below it.
"""
