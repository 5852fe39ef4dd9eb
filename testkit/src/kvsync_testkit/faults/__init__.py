"""Fault schedules in virtual time: a model engine, a lossy path, the real state machine and core, judged all the way."""
