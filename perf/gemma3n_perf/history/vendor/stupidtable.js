/* Sorting of asv's tables by their headings: the part of the plugin stupidtable that asv's pages call. */
(function ($) {
  "use strict";
  var known = {
    "int": function (a, b) { return parseInt(a, 10) - parseInt(b, 10); },
    "float": function (a, b) { return parseFloat(a) - parseFloat(b); },
    "string": function (a, b) { return a.toString().localeCompare(b.toString()); }
  };

  function shown(cell) {
    var value = $(cell).data("sort-value");
    return value === undefined ? $(cell).text() : value;
  }

  function sort(heading, wanted) {
    var th = $(heading), table = th.closest("table"), kind = th.data("sort");
    var order = (table.data("stupidtable") || known)[kind];
    if (!order) { return; }
    var column = th.index();
    var direction = wanted || (th.data("sort-dir") === "asc" ? "desc" : "asc");
    var sign = direction === "asc" ? 1 : -1;
    var rows = table.children("tbody").children("tr").get().map(function (row, place) {
      return {row: row, value: shown($(row).children().get(column)), place: place};
    });
    rows.sort(function (a, b) { return sign * order(a.value, b.value) || a.place - b.place; });
    table.children("tbody").append(rows.map(function (one) { return one.row; }));
    table.find("thead th").removeData("sort-dir").removeAttr("aria-sort");
    th.data("sort-dir", direction).attr("aria-sort", direction === "asc" ? "ascending" : "descending");
    table.trigger("aftertablesort", {column: column, direction: direction});
  }

  $.fn.stupidtable = function (more) {
    return this.each(function () {
      $(this).data("stupidtable", $.extend({}, known, more));
      $(this).find("thead th[data-sort]").attr("tabindex", 0).on("click keydown", function (event) {
        if (event.type === "click" || event.key === "Enter") { sort(this); }
      });
    });
  };
  $.fn.stupidsort = function (direction) {
    return this.each(function () { sort(this, direction); });
  };
})(jQuery);
