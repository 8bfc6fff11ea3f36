"""The PTransforms: one per pure function, of the same name, with as little logic as possible."""
