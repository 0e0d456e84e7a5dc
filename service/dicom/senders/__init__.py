"""What delivers one result to one kind of destination."""
