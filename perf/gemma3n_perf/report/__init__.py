"""Results for readers: terminal, Markdown, pages and plots. Nothing here decides anything."""
