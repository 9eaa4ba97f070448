"""Every bound of the package in one place, each with its reason."""

# Largest message, in either direction: what Protobuf allows. The driver sends a data frame as one; a server's messages have 64 MiB at most.
MESSAGE_BYTES_MAX = (1 << 31) - 1
# A result that a notebook holds whole. What is larger is fetched batch by batch, or asked for with LIMIT.
NOTEBOOK_RESULT_BYTES_MAX = 2 << 30
# Rows and columns of a result that a notebook shows: a page of them; the table behind has all.
SHOWN_ROWS_MAX = 20
SHOWN_COLUMNS_MAX = 40
# Characters of one shown value: a long text must not push the others off the page.
SHOWN_TEXT_MAX = 120
