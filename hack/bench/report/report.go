// Package report is how benchmarks say what they measured: as text, as JSON, and as Markdown between the marks of a page.
package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Report is one run of one benchmark.
type Report struct {
	Benchmark string    `json:"benchmark"`
	Date      time.Time `json:"date"`
	Commit    string    `json:"commit,omitempty"` // of the checkout, with -dirty if it had changes; "": unknown
	Machine   Machine   `json:"machine"`
	// Busy is the share of the CPUs that other programs used meanwhile, from 0 to 1: what disturbed the figures.
	Busy   float64 `json:"busy"`
	Tables []Table `json:"tables"`
}

// Table is figures that belong together.
type Table struct {
	Title   string   `json:"title"`
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"`
	Notes   []string `json:"notes,omitempty"` // sentences on how to read it
}

// Column is one kind of figure.
type Column struct {
	Name string `json:"name"`
	Unit Unit   `json:"unit"`
}

// Row is figures of one thing.
type Row struct {
	Name   string   `json:"name"`
	Values []Figure `json:"values"` // one for each column
}

// Figure is one number, in the unit of its column. The zero value is one that there is not.
type Figure struct {
	Value float64     `json:"value"`
	Known bool        `json:"known"`
	Aim   *Aim        `json:"aim,omitempty"`
	Range *[2]float64 `json:"range,omitempty"` // the least and the greatest of repeated measurements of which Value is the median
}

// Aim is a bound that a figure is to keep: the least or the greatest value.
type Aim struct {
	Max   float64 `json:"max"` // exclusive, but for 0, which means none at all
	Least bool    `json:"least,omitempty"`
	Min   float64 `json:"min,omitempty"` // inclusive; counts if Least
}

// Unit says what a number counts, and in which form it is read.
type Unit string

// The units.
const (
	Milliseconds Unit = "ms"
	Microseconds Unit = "µs"
	Nanoseconds  Unit = "ns"
	Seconds      Unit = "s"
	Count        Unit = ""
	PerSecond    Unit = "/s"
	Ratio        Unit = "x"
	MiB          Unit = "MiB"
	Octets       Unit = "B"
	Percent      Unit = "%"
)

// Of is a figure.
func Of(value float64) Figure { return Figure{Value: value, Known: true} }

// Duration is a figure for a column of Milliseconds.
func Duration(d time.Duration) Figure { return Of(float64(d) / float64(time.Millisecond)) }

// Below adds an aim.
func (f Figure) Below(limit float64) Figure {
	f.Aim = &Aim{Max: limit}
	return f
}

// AtLeast adds an aim.
func (f Figure) AtLeast(limit float64) Figure {
	f.Aim = &Aim{Least: true, Min: limit}
	return f
}

// Median is the median of values, with their range. There is none of no values.
func Median(values []float64) Figure {
	if len(values) == 0 {
		return Figure{}
	}
	sorted := slices.Sorted(slices.Values(values))
	f := Of(Quantile(sorted, 0.5))
	f.Range = &[2]float64{sorted[0], sorted[len(sorted)-1]}
	return f
}

// Quantile returns the smallest of the values, which are sorted and at least one, that the share q of them does not exceed;
// the median of an even number is the mean of the two in the middle.
func Quantile[T cmp.Ordered](sorted []T, q float64) T {
	rank := max(int(math.Ceil(q*float64(len(sorted)))), 1)
	if q == 0.5 && len(sorted)%2 == 0 {
		if mean, ok := any(sorted).([]float64); ok {
			return any((mean[rank-1] + mean[rank]) / 2).(T)
		}
	}
	return sorted[rank-1]
}

// Met reports whether the figure keeps its aim.
func (f Figure) Met() bool {
	switch {
	case f.Aim == nil:
		return true
	case f.Aim.Least:
		return f.Known && f.Value >= f.Aim.Min
	default:
		return f.Known && (f.Value < f.Aim.Max || f.Value == 0 && f.Aim.Max == 0)
	}
}

// text is the figure as it is read, with its range and aim.
func (f Figure) text(u Unit) string {
	if !f.Known {
		return "-"
	}
	text := u.number(f.Value)
	if f.Range != nil {
		if low, high := u.number(f.Range[0]), u.number(f.Range[1]); low != high {
			text += " (" + low + "-" + high + ")"
		}
	}
	switch {
	case f.Aim == nil:
	case f.Aim.Least && f.Met():
		text += ", aim >= " + u.number(f.Aim.Min)
	case f.Aim.Least:
		text += fmt.Sprintf(", aim >= %s missed", u.number(f.Aim.Min))
	case f.Aim.Max == 0 && f.Met():
		text += ", as aimed at"
	case f.Aim.Max == 0:
		text += ", aim: none"
	case f.Met():
		text += ", aim < " + u.number(f.Aim.Max)
	default:
		text += fmt.Sprintf(", aim < %s missed", u.number(f.Aim.Max))
	}
	return text
}

// number writes v with as many digits as are worth reading.
func (u Unit) number(v float64) string {
	switch u {
	case Ratio:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case Seconds:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case Milliseconds, Microseconds, MiB, Percent:
		if math.Abs(v) < 100 && v != math.Trunc(v) {
			return strconv.FormatFloat(v, 'f', 1, 64)
		}
	}
	return grouped(strconv.FormatFloat(v, 'f', 0, 64))
}

// Number writes a count as tables do.
func Number(n int) string { return grouped(strconv.Itoa(n)) }

// grouped puts commas between thousands.
func grouped(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// cells returns the table as text, the columns' names first.
func (t Table) cells() [][]string {
	head := []string{""}
	for _, c := range t.Columns {
		name := c.Name
		if c.Unit != Count {
			name += ", " + string(c.Unit)
		}
		head = append(head, name)
	}
	cells := [][]string{head}
	for _, r := range t.Rows {
		line := []string{r.Name}
		for i, f := range r.Values {
			line = append(line, f.text(t.Columns[i].Unit))
		}
		cells = append(cells, line)
	}
	return cells
}

// Text is the table for a terminal.
func (t Table) Text() string {
	cells := t.cells()
	widths := make([]int, len(t.Columns)+1)
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var s strings.Builder
	fmt.Fprintln(&s, t.Title)
	for _, line := range cells {
		for i, c := range line {
			if i == 0 {
				fmt.Fprintf(&s, "%-*s", widths[i], c)
			} else {
				fmt.Fprintf(&s, "  %*s", widths[i], c)
			}
		}
		s.WriteByte('\n')
	}
	for _, n := range t.Notes {
		fmt.Fprintln(&s, n)
	}
	return s.String()
}

// Markdown is the report for a page.
func (r Report) Markdown() string {
	var s strings.Builder
	for _, t := range r.Tables {
		fmt.Fprintf(&s, "**%s**\n\n", t.Title)
		for i, line := range t.cells() {
			fmt.Fprintf(&s, "| %s |\n", strings.Join(line, " | "))
			if i == 0 {
				s.WriteString("| --- |" + strings.Repeat(" ---: |", len(t.Columns)) + "\n")
			}
		}
		s.WriteByte('\n')
		for _, n := range t.Notes {
			s.WriteString(n + "\n")
		}
		if len(t.Notes) > 0 {
			s.WriteByte('\n')
		}
	}
	fmt.Fprintf(&s, "%s\n", r.Circumstances())
	return s.String()
}

// Circumstances says when, on what and how undisturbed.
func (r Report) Circumstances() string {
	text := fmt.Sprintf("Measured %s on %s", r.Date.Format(time.DateOnly), r.Machine)
	if r.Commit != "" {
		text += ", commit " + r.Commit
	}
	return text + fmt.Sprintf("; other programs used %.0f%% of the CPUs meanwhile.", 100*r.Busy)
}

// Update puts the report between its marks in a page, <!-- bench:NAME --> and <!-- end -->. It fails if they are not there.
func (r Report) Update(page string) (string, error) {
	open, end := "<!-- bench:"+r.Benchmark+" -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(page, open)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("the page has no place for benchmark %s: %s%s", r.Benchmark, open, end)
	}
	return before + open + "\n" + r.Markdown() + "\n" + end + after, nil
}
