//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/hack/bench/blast"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

const (
	queryNames, queryNamesShort = 100_000, 2000
	queryQuestions              = 200_000
)

// row is one table of the comparison of servers, or a few that belong together.
type row struct {
	name  string
	about string
	run   func(*bench) ([]report.Table, error)
}

// rows are all, in the order in which they are measured and shown.
var rows = []row{
	{"static", "the usual mix, with no more features than all have", static},
	{"features", "the same with cookies, NSID and limits of rates on, and 20% of questions with a cookie", features},
	{"nxdomain", "names that do not exist alone", nxdomain},
	{"large", "large RRsets", large},
	{"ipv6", "the usual mix over IPv6", ipv6},
	{"tcp", "the usual mix over TCP", tcp},
	{"dot", "the usual mix over TLS", dot},
	{"latency", "how long answers take at half of the load that each server can take", latency},
	{"updates", "with 50,000 changed records a second", updates},
	{"steered", "answers by the client's network, told by ECS and by source address", steered},
	{"sizes", "zones of 100 to 5,000,000 names", sizes},
	{"zones", "20,000 zones", manyZones},
	{"load", "loading 1,000,000 names, and memory", load},
	{"inprocess", "making an answer, without sockets", inProcess},
}

// chooseRows returns the rows named, or all, in their order.
func chooseRows(names []string) (chosen []row, err error) {
	known := map[string]bool{}
	for _, r := range rows {
		known[r.name] = true
		if len(names) == 0 || slices.Contains(names, r.name) {
			chosen = append(chosen, r)
		}
	}
	for _, n := range names {
		if !known[n] {
			return nil, fmt.Errorf("queries has no row %q, but %s", n, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	return chosen, nil
}

// rounds is how often each server is asked.
func (b *bench) rounds() int {
	switch {
	case b.Rounds > 0:
		return b.Rounds
	case b.Short:
		return 2
	}
	return 5
}

// length is for how long a server is asked in one round.
func (b *bench) length() time.Duration {
	if b.Short {
		return 300 * time.Millisecond
	}
	return 3 * time.Second
}

// names is the size of the usual zone.
func (b *bench) names() int {
	if b.Short {
		return queryNamesShort
	}
	return queryNames
}

// start writes the field's zones and starts servers.
func (b *bench) start(f *field, names ...string) error {
	if runtime.NumCPU() < 2 {
		return errors.New("one CPU for the server and one for the questions are needed")
	}
	dir, err := os.MkdirTemp(b.dir, "zones-*")
	if err != nil {
		return err
	}
	if err := f.write(dir); err != nil {
		return err
	}
	if f.tls {
		if err := writeCredentials(b.path("tls"), control.GroupKey{Datacenter: "bench", Group: "bench"}); err != nil {
			return err
		}
	}
	known := b.contenders()
	for _, name := range names {
		if _, err := f.start(b, known[name]); err != nil {
			return errors.Join(err, f.stop())
		}
	}
	return nil
}

// entrant is one of those that a table compares, the first of which is ours.
type entrant struct {
	name string
	aim  float64 // its CPU time for a query is to be at least so many times ours; 0: no aim
	ask  func() (round, error)
}

// errSilent is that of a server without an answer.
var errSilent = errors.New("it does not answer")

// compare asks one entrant after the other, round after round. The result has the rounds of each.
func (b *bench) compare(entrants []entrant) ([][]round, error) {
	rounds := make([][]round, len(entrants))
	for range b.rounds() {
		for i, e := range entrants {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			r, err := e.ask()
			for again := 0; errors.Is(err, errSilent) && again < 3; again++ { // it got no CPU time for once
				r, err = e.ask()
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			rounds[i] = append(rounds[i], r)
		}
	}
	return rounds, nil
}

// entrants have all servers of a field asked the same over UDP.
func (b *bench) entrants(f *field, questions workload.Questions, aims map[string]float64) (list []entrant) {
	for _, c := range f.running {
		list = append(list, entrant{c.name, aims[c.name], func() (round, error) {
			return c.ask(asking{questions: questions, length: b.length()})
		}})
	}
	return list
}

// queryTable compares entrants.
func queryTable(title string, entrants []entrant, rounds [][]round) report.Table {
	t := report.Table{
		Title: title,
		Columns: []report.Column{
			{Name: "CPU a query", Unit: report.Nanoseconds}, {Name: "/ " + entrants[0].name, Unit: report.Ratio}, {Name: "queries", Unit: report.PerSecond},
			{Name: "without answer", Unit: report.Percent},
		},
	}
	for i, e := range entrants {
		t.Rows = append(t.Rows, report.Row{Name: e.name, Values: queryFigures(e, rounds[i], rounds[0])})
	}
	return t
}

func queryFigures(e entrant, rounds, first []round) []report.Figure {
	var cpu, ratio, rate, lost []float64
	for j, r := range rounds {
		cpu = append(cpu, r.cpu)
		ratio = append(ratio, r.cpu/first[j].cpu)
		rate = append(rate, r.result.Rate())
		lost = append(lost, 100*float64(r.result.Lost)/float64(r.result.Lost+r.result.Answers))
	}
	compared := report.Median(ratio)
	if e.aim > 0 {
		compared = compared.AtLeast(e.aim)
	}
	return []report.Figure{report.Median(cpu), compared, report.Median(rate), report.Median(lost)}
}

// udp compares servers that are asked the same over UDP.
func (b *bench) udp(f *field, servers []string, title string, mix workload.Mix, aims map[string]float64) (tables []report.Table, err error) {
	if err := b.start(f, servers...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	list := b.entrants(f, f.zones.Questions(queryQuestions, mix, nil), aims)
	rounds, err := b.compare(list)
	if err != nil {
		return nil, err
	}
	return []report.Table{queryTable(title, list, rounds)}, nil
}

func (b *bench) usualZone() workload.Zones { return workload.Zones{workload.NewZone(b.names())} }

const usualTitle = "80% answers, 10% NXDOMAIN, 5% referrals, 5% NODATA; 70% with EDNS"

func static(b *bench) ([]report.Table, error) {
	servers := append(b.withEcho(all), corednsCache)
	return b.udp(&field{zones: b.usualZone()}, servers, usualTitle, workload.Usual, map[string]float64{
		cEcho: 0.88, gdnsd: 1.08, knot: 1.5, nsd: 1.5, bind: 2, powerdns: 2, coredns: 8,
	})
}

func nxdomain(b *bench) ([]report.Table, error) {
	return b.udp(&field{zones: b.usualZone()}, b.withEcho(all), "NXDOMAIN alone, random names; 70% with EDNS", workload.Mix{NXDomain: 100, EDNS: 70}, nil)
}

func large(b *bench) ([]report.Table, error) {
	return b.udp(&field{zones: b.usualZone()}, b.withEcho(all), "RRsets of 24 addresses and of 3 texts of 220 octets; all with EDNS", workload.Mix{Large: 100, EDNS: 100}, nil)
}

func ipv6(b *bench) ([]report.Table, error) {
	return b.udp(&field{zones: b.usualZone(), ipv6: true}, b.withEcho([]string{ours, gdnsd, knot, nsd, bind}), usualTitle+"; over IPv6", workload.Usual, nil)
}

// featureClients is how many addresses questions come from, so that none reaches a limit.
const featureClients = 64

// features has each server's own cookies come back to it.
func features(b *bench) (tables []report.Table, err error) {
	f := &field{zones: b.usualZone(), features: true}
	if err := b.start(f, b.withEcho(all)...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	mix := workload.Usual
	mix.Cookies = 20
	aims := map[string]float64{cEcho: 0.82, gdnsd: 1.03, knot: 1.35, nsd: 1.35, bind: 1.9, powerdns: 1.9, coredns: 7}
	var list []entrant
	var without []string
	for _, c := range f.running {
		cookie, err := c.cookie(f.zones.FirstName())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		if c.answers && len(cookie) == clientCookie {
			without = append(without, c.name)
		}
		questions := f.zones.Questions(queryQuestions, mix, cookie)
		list = append(list, entrant{c.name, aims[c.name], func() (round, error) {
			return c.ask(asking{questions: questions, sources: workload.Sources(featureClients), length: b.length()})
		}})
	}
	rounds, err := b.compare(list)
	if err != nil {
		return nil, err
	}
	t := queryTable("The same with all features on, 20% of questions with the server's cookie", list, rounds)
	t.Notes = append(t.Notes, fmt.Sprintf("Cookies, NSID and limits of rates are on at each server as far as it has them; limits are never reached. Questions come from %d addresses.", featureClients))
	if len(without) > 0 {
		t.Notes = append(t.Notes, "No cookies: "+strings.Join(without, ", ")+". They get a client's cookie alone.")
	}
	return []report.Table{t}, nil
}

// clientCookie is the size of a client's part, in octets (RFC 7873 §4.1).
const clientCookie = 8

// cookie asks the server for one, which is a client's part alone if the server has none.
func (c *contestant) cookie(name string) ([]byte, error) {
	cookie := []byte("fingerpt")
	question := workload.Questions{}.Add(name, 1, workload.OPT(append([]byte{0, 10, 0, clientCookie}, cookie...))).First()
	conn, err := net.Dial("udp", c.address.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply := make([]byte, 1232)
	for range 20 {
		if _, err := conn.Write(question); err != nil {
			return nil, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := conn.Read(reply)
		if err != nil {
			continue
		}
		if at := bytes.Index(reply[:n], cookie); c.answers && at >= 4 && reply[at-4] == 0 && reply[at-3] == 10 {
			size := int(reply[at-2])<<8 | int(reply[at-1])
			if at+size <= n {
				return bytes.Clone(reply[at : at+size]), nil
			}
		}
		return cookie, nil
	}
	return nil, errors.New("it gives no answer")
}

// streams are the ways to ask over connections.
type streams struct {
	title   string
	options blast.StreamOptions
}

// overConnections compares servers that are asked over connections.
func (b *bench) overConnections(f *field, servers []string, ways []streams) (tables []report.Table, err error) {
	if err := b.start(f, servers...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	file := b.path("questions")
	if err := os.WriteFile(file, f.zones.Questions(queryQuestions/10, workload.Usual, nil), 0o644); err != nil {
		return nil, err
	}
	for _, way := range ways {
		way.options.Length = b.length()
		var list []entrant
		for _, c := range f.running {
			list = append(list, entrant{name: c.name, ask: func() (round, error) { return c.askStream(b, way.options, file) }})
		}
		rounds, err := b.compare(list)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.title, err)
		}
		tables = append(tables, queryTable(way.title, list, rounds))
	}
	return tables, nil
}

func tcp(b *bench) ([]report.Table, error) {
	return b.overConnections(&field{zones: b.usualZone()}, all, []streams{
		{"TCP, 20 connections with 16 questions at once", blast.StreamOptions{Connections: 20, Window: 16}},
		{"TCP, a connection for each question, 20 at once", blast.StreamOptions{Connections: 20, Window: 1, Windows: 1}},
	})
}

// dot never asks before the last answer is there: NSD 4.6 leaves a second question in the same TLS record lying.
func dot(b *bench) ([]report.Table, error) {
	return b.overConnections(&field{zones: b.usualZone(), tls: true}, []string{ours, nsd, bind, coredns}, []streams{
		{"DNS over TLS, 20 connections with one question after the other", blast.StreamOptions{TLS: true, Connections: 20, Window: 1}},
		{"DNS over TLS, a connection for every 4 questions, 20 at once", blast.StreamOptions{TLS: true, Connections: 20, Window: 1, Windows: 4}},
	})
}

// latency asks each server half of what it can answer.
func latency(b *bench) (tables []report.Table, err error) {
	f := &field{zones: b.usualZone()}
	servers := []string{ours, gdnsd, knot, nsd, bind, powerdns}
	if err := b.start(f, b.withEcho(servers)...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	questions := f.zones.Questions(queryQuestions, workload.Usual, nil)
	var list []entrant
	for _, c := range f.running {
		list = append(list, entrant{name: c.name, ask: func() (round, error) { return c.atHalfLoad(asking{questions: questions, length: b.length()}) }})
	}
	rounds, err := b.compare(list)
	if err != nil {
		return nil, err
	}
	return []report.Table{latencyTable("At half of the load that each takes", list, rounds)}, nil
}

// atHalfLoad finds out how much the server can answer, and asks it half of that.
func (c *contestant) atHalfLoad(a asking) (round, error) {
	full := a
	full.length = min(a.length, time.Second)
	most, err := c.ask(full)
	if err != nil {
		return round{}, err
	}
	a.rate = most.result.Rate() / 2
	return c.ask(a)
}

func latencyTable(title string, entrants []entrant, rounds [][]round) report.Table {
	t := report.Table{Title: title, Columns: []report.Column{
		{Name: "queries", Unit: report.PerSecond}, {Name: "p50", Unit: report.Microseconds}, {Name: "p99", Unit: report.Microseconds},
		{Name: "p99.9", Unit: report.Microseconds}, {Name: "without answer", Unit: report.Percent},
	}}
	for i, e := range entrants {
		var rate, lost []float64
		quantiles := make([][]float64, 3)
		for _, r := range rounds[i] {
			rate = append(rate, r.result.Rate())
			lost = append(lost, 100*float64(r.result.Lost)/float64(r.result.Lost+r.result.Answers))
			for k, q := range []float64{0.5, 0.99, 0.999} {
				quantiles[k] = append(quantiles[k], float64(r.result.Latency.Quantile(q))/float64(time.Microsecond))
			}
		}
		row := report.Row{Name: e.name, Values: []report.Figure{report.Median(rate)}}
		for _, q := range quantiles {
			row.Values = append(row.Values, report.Median(q))
		}
		row.Values = append(row.Values, report.Median(lost))
		t.Rows = append(t.Rows, row)
	}
	return t
}
