// A click on a heading sorts the rows of its table: numbers by `data-value` where a cell has it, empty ones last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.tabIndex = 0;
    const sort = () => {
      const wasFirst = heading.getAttribute("aria-sort");
      const numeric = table.tBodies[0].querySelector(`td:nth-child(${column + 1})[data-value]`) !== null;
      const rising = wasFirst ? wasFirst === "descending" : !numeric;
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = row => {
        const cell = row.cells[column], value = cell.dataset.value;
        return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
      };
      const order = (a, b) => a === null ? (b === null ? 0 : 1) : b === null ? -1
        : (rising ? 1 : -1) * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
      table.tBodies[0].append(...rows.sort((a, b) => order(a[0], b[0])).map(pair => pair[1]));
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}
