//go:build linux

package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/store"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// rootZone is the internet's root zone of September 2020 without SOA, which rootSOA stands for.
const (
	rootZone = "dnsserver/zone/testdata/root.zone.gz"
	rootSOA  = ". 86400 SOA a.root-servers.net. nstld.verisign-grs.com. 2020091300 1800 900 604800 86400\n"
)

// startLimit is the aim for the root zone, in milliseconds.
const startLimit = 200

// start measures how long a server that has its zones on disk takes from exec to its first answer, while no hub is there.
func start(b *bench) ([]report.Table, error) {
	root, err := readRoot()
	if err != nil {
		return nil, err
	}
	text := func(names int) string {
		var text strings.Builder
		_, _ = workload.NewZone(names).WriteTo(&text) // which fails never
		return text.String()
	}
	if err := writeCredentials(b.path("tls"), control.GroupKey{Datacenter: "dc-a", Group: "root"}); err != nil {
		return nil, err
	}
	t := report.Table{
		Title: "From exec to the first answer, no hub in reach",
		Columns: []report.Column{
			{Name: "records", Unit: report.Count}, {Name: "file", Unit: report.MiB},
			{Name: "file in memory", Unit: report.Milliseconds}, {Name: "file on disk alone", Unit: report.Milliseconds},
		},
		Notes: []string{
			fmt.Sprintf("Median of %d starts each (from the fastest to the slowest), of the largest zone %d. A file is in memory after a restart of the program, on disk alone after one of the machine; the program itself is in memory both times.", b.times(startTimes, startTimesShort), b.times(startTimesLarge, 1)),
		},
	}
	most := manyNames
	if b.Short {
		most = 20_000
	}
	for _, z := range []struct {
		name, apex string
		text       func() string
		times      int
		limit      float64
	}{
		{"the root zone", ".", func() string { return rootSOA + root }, b.times(startTimes, startTimesShort), startLimit},
		{"one zone of " + report.Number(queryNames) + " names", workload.Apex, func() string { return text(queryNames) }, b.times(startTimes, startTimesShort), 0},
		{"one zone of " + report.Number(most) + " names", workload.Apex, func() string { return text(most) }, b.times(startTimesLarge, 1), 0},
	} {
		row, err := b.startWith(z.name, z.apex, z.text(), z.times, z.limit)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", z.name, err)
		}
		t.Rows = append(t.Rows, row)
	}
	return []report.Table{t}, nil
}

const startTimes, startTimesShort, startTimesLarge = 21, 3, 5

func readRoot() (string, error) {
	file, err := os.Open(rootZone)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := gzip.NewReader(file)
	if err != nil {
		return "", err
	}
	content, err := io.ReadAll(text)
	return string(content), err
}

// writeCredentials makes a folder as `manager certs export` does.
func writeCredentials(dir string, group control.GroupKey) error {
	policy, now := pki.DefaultPolicy(), time.Now()
	authority, err := pki.NewAuthority(nil, now, policy)
	if err != nil {
		return err
	}
	leaf, err := authority.Issue(pki.ServerProfile(group.URI()), now, policy)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, content := range authority.LeafData(leaf) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startWith starts a server again and again that has one zone on its disk.
func (b *bench) startWith(name, apex, text string, times int, limit float64) (report.Row, error) {
	row := report.Row{Name: name}
	origin, err := zone.ParseName(apex, "")
	if err != nil {
		return row, err
	}
	content, version, faults := zone.LoadParallel(origin, text, runtime.GOMAXPROCS(0))
	for _, f := range faults {
		if !f.Warning {
			return row, f
		}
	}
	state := b.path("state-" + strings.ReplaceAll(name, " ", "-"))
	disk, _, err := store.Open(state, func(error) {})
	if err != nil {
		return row, err
	}
	err = disk.Commit(store.Fence{Epoch: 1, Cluster: "bench"}, store.Change{Apex: origin, Zone: &store.Zone{
		Content: content, Version: version, Source: "bench/zone", Cluster: "bench",
	}})
	if err := errors.Join(err, disk.Close()); err != nil {
		return row, err
	}
	file, size, err := largest(state)
	if err != nil {
		return row, err
	}
	// The kernel keeps a file in memory that was just written; what is not on disk yet it would not let go of.
	unix.Sync()
	row.Values = []report.Figure{report.Of(float64(content.Records())), report.Of(float64(size) / (1 << 20))}
	for _, cold := range []bool{false, true} {
		var took []float64
		for range times {
			if cold {
				if err := forget(file); err != nil {
					return row, err
				}
			}
			one, err := b.startOnce(state, apex)
			if err != nil {
				return row, err
			}
			took = append(took, one.Seconds()*1000)
		}
		f := report.Median(took)
		if limit > 0 {
			f = f.Below(limit)
		}
		row.Values = append(row.Values, f)
	}
	return row, nil
}

// largest returns the largest file of a folder.
func largest(dir string) (path string, size int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return "", 0, err
		}
		if info.Size() > size {
			path, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	return path, size, nil
}

// forget makes the kernel drop a file from memory.
func forget(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// startOnce starts a server, asks it for the SOA of its zone each millisecond, and kills it when it has answered.
func (b *bench) startOnce(state, apex string) (took time.Duration, err error) {
	address := netip.MustParseAddrPort("127.0.0.1:53")
	if !b.Private { // the machine's own network
		port, err := freePort(address.Addr())
		if err != nil {
			return 0, err
		}
		address = netip.AddrPortFrom(address.Addr(), port)
	}
	log := b.path("dnsserver.log")
	began := time.Now()
	p, err := process.Start(process.Options{Name: "dnsserver", Log: log}, filepath.Join(b.Programs.Bin, "dnsserver"),
		"--hub", "127.0.0.1:1", "--tls-dir", b.path("tls"), "--state-dir", state, "--name", "one", "--listen", address.String(), "--http-listen", "")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Stop(0)) }()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	first, err := estate.Await(ctx, address, apex, dns.TypeSOA, func(m *dns.Msg) bool { return m.Authoritative && len(m.Answer) == 1 })
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, p.LastWords())
	}
	return first.Sub(began), nil
}
