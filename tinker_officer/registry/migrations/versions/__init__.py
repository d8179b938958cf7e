"""The revisions of the schema, one file each. A released one never changes."""
