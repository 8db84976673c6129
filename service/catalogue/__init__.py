"""The item catalogue as a replica serves it: titles, attributes and availability, by rows of the served model."""
