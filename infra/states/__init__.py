"""The states of the stage's state machine, in Step Functions' Amazon States Language."""
