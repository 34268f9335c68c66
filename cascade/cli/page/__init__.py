"""`cascade page`: a bundle as one file of HTML. `cascade.mjs` is its engine, `page.html` what one sees."""
