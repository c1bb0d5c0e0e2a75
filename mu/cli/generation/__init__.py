"""Parts of `mu generate`: prompts, models, images and answers, and the page."""
