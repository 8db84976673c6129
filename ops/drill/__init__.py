"""What the failure drill, `recollect chaos`, is made of; `ops/commands/chaos.py` says what is done with it."""
