"""The analysis: reads records and makes statements about them."""
