"""What `rendering` is made of: a type's folder, its schema, Jinja closed down, filters, what mail clients show."""
