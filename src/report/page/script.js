(function () {
  "use strict";
  var root = document.documentElement, button = document.getElementById("theme");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function isDark() { return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches; }
  function name() { button.textContent = isDark() ? "light" : "dark"; }
  button.hidden = false;
  button.addEventListener("click", function () { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  dark.addEventListener("change", name);
  name();
  var table = document.getElementById("figures"), body = table.tBodies[0];
  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var sort = document.createElement("button");
    sort.type = "button";
    sort.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(sort);
    sort.addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") !== "ascending";
      Array.prototype.forEach.call(table.tHead.rows[0].cells, function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      Array.prototype.slice.call(body.rows).sort(function (a, b) {
        var x = a.cells[column], y = b.cells[column], one = parseFloat(x.dataset.key), two = parseFloat(y.dataset.key);
        if (isNaN(one) && isNaN(two)) { return (up ? 1 : -1) * x.textContent.localeCompare(y.textContent); }
        // Rows without a figure stay at the end.
        if (isNaN(one) || isNaN(two)) { return isNaN(one) ? 1 : -1; }
        return (up ? 1 : -1) * (one - two);
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
})();
