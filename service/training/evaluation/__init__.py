"""How good models are: what is held out, what is measured, and how sure that is."""
