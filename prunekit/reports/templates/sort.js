"use strict";
// Sorts a table by the column whose heading is pressed; pressed again, the other way round. Rows without a
// value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    const key = "key" in cell.dataset ? cell.dataset.key : cell.textContent.trim();
    return key !== "" && isFinite(key) ? Number(key) : key;
  };
  const order = (a, b) =>
    typeof a === typeof b
      ? typeof a === "number" ? a - b : a.localeCompare(b)
      : typeof a === "number" ? -1 : 1;
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      const known = rows.filter(([key]) => key !== "");
      known.sort(([a], [b]) => (descending ? order(b, a) : order(a, b)));
      const unknown = rows.filter(([key]) => key === "");
      body.append(...[...known, ...unknown].map(([, row]) => row));
    });
  });
}
