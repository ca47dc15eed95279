package dnsserver

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// TestEveryRecordIsReportedHoweverLargeTheyAre has records with as many targets as there may be, each with a long failure.
func TestEveryRecordIsReportedHoweverLargeTheyAre(t *testing.T) {
	for _, records := range []int{0, 100, 2000} {
		t.Run(fmt.Sprintf("records=%d", records), func(t *testing.T) {
			s := quietSteerer(t, steererOptions{})
			dropped := map[string]bool{}
			s.opts.Unreport = func(kind string) { dropped[kind] = true }
			told := map[string]*steeringpb.RecordReport{}
			held := map[string][]string{} // by kind, as the hub has them
			report := func() {
				t.Helper()
				s.reported = time.Time{}
				for kind, message := range s.reports(time.Now()) {
					reports, is := message.(*steeringpb.Report)
					if !is {
						continue
					}
					body, err := marshal.Marshal(message)
					if err != nil {
						t.Fatal(err)
					}
					if len(body) > control.MaxReport {
						t.Errorf("report %s has %d octets", kind, len(body))
					}
					maps.DeleteFunc(held, func(other string, _ []string) bool {
						return strings.Count(other, "-") != strings.Count(kind, "-") || division(other) != division(kind)
					})
					held[kind] = nil
					for _, r := range reports.GetRecords() {
						held[kind] = append(held[kind], r.GetSource())
						told[r.GetSource()] = r
					}
				}
			}
			add := func(source string, targets int) {
				r := &steeringpb.RecordReport{Source: source}
				for range targets {
					r.Targets = append(r.Targets, &steeringpb.TargetReport{Failure: strings.Repeat("x", 250), State: steeringpb.TargetReport_DOWN})
				}
				src := &steeredSource{source: source, kind: reportKind(source, s.parts), report: r}
				s.sources[source] = src
				if s.kinds[src.kind] == nil {
					s.kinds[src.kind] = map[string]*steeredSource{}
				}
				s.kinds[src.kind][source] = src
				s.unreports[src.kind] = true
			}
			add("payments/small", 1)
			report()
			for i := range records {
				add(fmt.Sprintf("payments/app-%d", i), 64)
			}
			report()
			count := 0
			for _, sources := range held {
				count += len(sources)
			}
			if len(told) != records+1 || count != records+1 {
				t.Errorf("%d records were told of, the hub has %d of %d", len(told), count, records+1)
			}
			for kind := range held {
				if dropped[kind] {
					t.Errorf("the next hub is not told %s", kind)
				}
			}
			for source, src := range s.sources {
				if !proto.Equal(told[source], src.report) {
					t.Errorf("of %s something else was told", source)
				}
			}
		})
	}
}

func division(kind string) string { return kind[:strings.LastIndex(kind, "-")] }
