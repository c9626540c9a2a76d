"""What must never be imported because a file says so."""

raise AssertionError("a file decided what is imported")
