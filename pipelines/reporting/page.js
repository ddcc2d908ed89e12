for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = parseFloat(cell.dataset.value ?? cell.textContent);
    return heads[column].classList.contains("n") ? (isNaN(number) ? -Infinity : number) : cell.textContent.trim();
  };
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const numeric = head.classList.contains("n");
    const descending = head.ariaSort ? head.ariaSort === "ascending" : numeric;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.ariaSort = descending ? "descending" : "ascending";
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return (x < y ? -1 : x > y ? 1 : 0) * (descending ? -1 : 1);
      });
      body.append(...rows);
    }
  }));
}
