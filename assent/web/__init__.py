"""Web pages for labelling, chat, review and progress."""
