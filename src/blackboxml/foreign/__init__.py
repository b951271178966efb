"""What converters share: values, tables, databases and settings of other systems."""
