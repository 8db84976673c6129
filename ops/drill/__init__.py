"""What the failure drill, `recollect chaos`, is made of; `ops/chaos.py` says what is done with it."""
