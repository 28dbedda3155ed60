"""A local web page to try SRT on images of one's own."""
