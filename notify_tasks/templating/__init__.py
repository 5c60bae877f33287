"""What `rendering` is made of: reading a type's folder, its schema, and Jinja closed down."""
