"""Planning a step for TPUs that are not there: does it fit, what does it compute and send, what bounds it."""
