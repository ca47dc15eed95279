package report

import (
	"strings"
	"testing"
	"time"
)

func TestFiguresAreWrittenAsTheyAreRead(t *testing.T) {
	for want, c := range map[string]struct {
		figure Figure
		unit   Unit
	}{
		"-":                          {Figure{}, Count},
		"1,234,567":                  {Of(1234567), PerSecond},
		"-1,234":                     {Of(-1234), Count},
		"0.52":                       {Of(0.521), Ratio},
		"12.3":                       {Of(12.34), Milliseconds},
		"123":                        {Of(123.4), Milliseconds},
		"0":                          {Duration(0), Milliseconds},
		"20 (10-30)":                 {Median([]float64{30, 10, 20}), Nanoseconds},
		"7":                          {Median([]float64{7, 7}), Nanoseconds},
		"80.5, aim < 100":            {Of(80.5).Below(100), Milliseconds},
		"100, aim < 100 missed":      {Of(100).Below(100), Milliseconds},
		"0, as aimed at":             {Of(0).Below(0), Count},
		"3, aim: none":               {Of(3).Below(0), Count},
		"1.50, aim >= 1.50":          {Of(1.5).AtLeast(1.5), Ratio},
		"1.49, aim >= 1.50 missed":   {Of(1.49).AtLeast(1.5), Ratio},
		"15 (1-16), aim < 10 missed": {Median([]float64{15, 1, 16}).Below(10), Count},
	} {
		if got := c.figure.text(c.unit); got != want {
			t.Errorf("it is written %q, wanted %q", got, want)
		}
	}
}

func TestQuantilesAreValuesThatWereMeasured(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{5}, 0.99, 5},
		{[]float64{1, 2}, 0.5, 1.5},
		{[]float64{1, 2, 9}, 0.5, 2},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
	} {
		if got := Quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile %v of %d values is %v, wanted %v", c.q, len(c.values), got, c.want)
		}
	}
}

func example() Report {
	return Report{
		Benchmark: "speed", Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Busy: 0.5,
		Machine: Machine{CPU: "EPYC", Cores: 2, MiB: 24 << 10, Kernel: "6.18", Go: "go1.26"},
		Tables: []Table{{
			Title: "Steps", Columns: []Column{{"long", Milliseconds}, {"count", Count}}, Notes: []string{"A note."},
			Rows: []Row{{"one", []Figure{Of(1.5), Of(2)}}, {"twenty", []Figure{Of(20).Below(10), {}}}},
		}},
	}
}

func TestAReportTakesItsPlaceInAPage(t *testing.T) {
	const page = "before\n<!-- bench:speed -->\nold\n<!-- end -->\nafter <!-- bench:other -->\n<!-- end -->\n"
	const want = `before
<!-- bench:speed -->

**Steps**

|  | long, ms | count |
| --- | ---: | ---: |
| one | 1.5 | 2 |
| twenty | 20, aim < 10 missed | - |

A note.

Measured 2026-11-22 on EPYC, 2 CPUs, 24 GiB, Linux 6.18, go1.26; other programs used 50% of the CPUs meanwhile.

<!-- end -->
after <!-- bench:other -->
<!-- end -->
`
	got, err := example().Update(page)
	if err != nil || got != want {
		t.Errorf("the page is %s, %v", got, err)
	}
	if again, err := example().Update(got); err != nil || again != want {
		t.Errorf("the same report again makes another page: %s, %v", again, err)
	}
	other := example()
	other.Benchmark = "unknown"
	if _, err := other.Update(page); err == nil || !strings.Contains(err.Error(), "<!-- bench:unknown -->") {
		t.Errorf("a page without place: %v", err)
	}
}

func TestColumnsOfTextAreAligned(t *testing.T) {
	const want = `Steps
                   long, ms  count
one                     1.5      2
twenty  20, aim < 10 missed      -
A note.
`
	if got := example().Tables[0].Text(); got != want {
		t.Errorf("the table is\n%s", got)
	}
}

func TestWhatThisProgramUsesIsNotOthers(t *testing.T) {
	before, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	watch, err := Watch()
	if err != nil {
		t.Fatal(err)
	}
	spent := before
	for spent-before < 100*time.Millisecond {
		if spent, err = ours(); err != nil {
			t.Fatal(err)
		}
	}
	now, err := Watch()
	if err != nil {
		t.Fatal(err)
	}
	if now.all == watch.all || now.ours-watch.ours < 100*time.Millisecond {
		t.Errorf("after %s of work: %+v, before %+v", spent-before, now, watch)
	}
	if share, err := watch.Others(); err != nil || share < 0 || share > 1 {
		t.Errorf("others have used %v, %v", share, err)
	}
}
