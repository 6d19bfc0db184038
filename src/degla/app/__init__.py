"""Pages for a browser: people look at examples and decide. Nothing else imports this room."""
