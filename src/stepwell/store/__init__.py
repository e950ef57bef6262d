"""Where rows are kept: the seam, the memory store (the reference model), and the databases. All SQL lives here."""
