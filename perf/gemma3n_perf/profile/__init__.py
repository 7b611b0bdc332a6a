"""Where a token's time goes on this chip, and the largest win a fusion could have: measured parts, then a pure rule."""
