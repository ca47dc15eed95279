package dnsserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// ZoneFile is a zone of a server that runs alone.
type ZoneFile struct {
	Apex zone.Name
	Path string // of a master file, RFC 1035 §5
}

// ParseZoneFile reads NAME=FILE. The name is absolute with or without its final dot.
func ParseZoneFile(text string) (ZoneFile, error) {
	name, path, ok := strings.Cut(text, "=")
	if !ok || path == "" {
		return ZoneFile{}, fmt.Errorf("%q is not NAME=FILE", text)
	}
	apex, err := zone.ParseName(name, "")
	if err != nil {
		return ZoneFile{}, err
	}
	return ZoneFile{apex, path}, nil
}

// readZoneList reads lines "NAME FILE"; paths are relative to the list's own folder, and
// blank lines and those that start with # count for nothing.
func readZoneList(path string) ([]ZoneFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var files []ZoneFile
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, file, ok := strings.Cut(line, " ")
		if file = strings.TrimSpace(file); !ok || file == "" {
			return nil, fmt.Errorf("%s:%d: %q is not \"NAME FILE\"", path, n, line)
		}
		apex, err := zone.ParseName(name, "")
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(path), file)
		}
		files = append(files, ZoneFile{apex, file})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return files, nil
}

// loaded is what one zone file gave: a zone or an error.
type loaded struct {
	file     ZoneFile
	zone     *zone.Served
	warnings []*zone.Fault
	err      error // one line: FILE:LINE:COLUMN: what is wrong
}

// readText reads a file.
func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	text.Grow(int(info.Size()))
	_, err = io.Copy(&text, f)
	return text.String(), err
}

// loadZoneFile reads a zone on up to so many threads. A fault by which records are lost fails
// the whole zone.
func loadZoneFile(file ZoneFile, threads int) loaded {
	l := loaded{file: file}
	text, err := readText(file.Path)
	if err != nil {
		l.err = fmt.Errorf("zone %s: %w", file.Apex, err)
		return l
	}
	content, version, faults := zone.LoadParallel(file.Apex, text, threads)
	var fatal []*zone.Fault
	for _, f := range faults {
		if f.Warning {
			l.warnings = append(l.warnings, f)
		} else {
			fatal = append(fatal, f)
		}
	}
	switch {
	case len(fatal) > 0:
		more := ""
		if len(fatal) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(fatal)-1)
		}
		l.err = fmt.Errorf("%s: zone %s: %w%s", fatal[0].Place(file.Path), file.Apex, fatal[0].Err, more)
	case content == nil:
		l.err = fmt.Errorf("%s: zone %s: there is no SOA at the apex", file.Path, file.Apex)
	default:
		if l.zone, err = zone.NewServed(content, version); err != nil {
			l.err = fmt.Errorf("%s: %w", file.Path, err)
		}
	}
	return l
}

// largeFile is from where on a file is worth several threads, in octets.
const largeFile = 4 << 20

// loadZoneFiles reads all files on so many threads: the large ones one after the other, on
// all threads, and of the others each on one. Results are in the files' order.
func loadZoneFiles(files []ZoneFile, threads int) []loaded {
	results := make([]loaded, len(files))
	var large []int
	var locked sync.Mutex
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(threads, len(files)) {
		workers.Go(func() {
			for i := range next {
				if info, err := os.Stat(files[i].Path); err == nil && info.Size() >= largeFile {
					locked.Lock()
					large = append(large, i)
					locked.Unlock()
					continue
				}
				results[i] = loadZoneFile(files[i], 1)
			}
		})
	}
	for i := range files {
		next <- i
	}
	close(next)
	workers.Wait()
	for _, i := range large {
		results[i] = loadZoneFile(files[i], threads)
	}
	return results
}

// zoneFiles are the zones of a server that runs alone.
type zoneFiles struct {
	fixed   []ZoneFile
	list    string // path of a zone list; "" for none
	view    *zone.View
	threads int             // that load zones, at least 1
	again   <-chan struct{} // each element asks for a reload; may be nil
	log     logr.Logger
}

func (z *zoneFiles) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-z.again:
			z.reload()
		}
	}
}

// ready is nil: without all of its zones such a server does not start.
func (*zoneFiles) ready() error { return nil }

// Describe implements prometheus.Collector. A server that runs alone adds no metrics.
func (*zoneFiles) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (*zoneFiles) Collect(chan<- prometheus.Metric) {}

// all returns the zones to serve by now. A zone that comes twice is an error.
func (z *zoneFiles) all() ([]ZoneFile, error) {
	files := z.fixed
	if z.list != "" {
		listed, err := readZoneList(z.list)
		if err != nil {
			return nil, fmt.Errorf("reading the list of zones: %w", err)
		}
		files = append(slices.Clip(files), listed...)
	}
	seen := make(map[zone.Name]bool, len(files))
	for _, f := range files {
		if seen[f.Apex] {
			return nil, fmt.Errorf("zone %s is given twice", f.Apex)
		}
		seen[f.Apex] = true
	}
	return files, nil
}

// start loads all zones. The first that does not load is an error, and nothing is served.
func (z *zoneFiles) start() error {
	files, err := z.all()
	if err != nil {
		return err
	}
	var zones []*zone.Served
	for _, l := range loadZoneFiles(files, z.threads) {
		if l.err != nil {
			return l.err
		}
		z.warn(l)
		zones = append(zones, l.zone)
	}
	z.view.Update(zones, nil)
	z.log.Info("zones loaded", "zones", len(zones))
	go debug.FreeOSMemory() // loading took several times what the zones take
	return nil
}

// reload reads the list and all files again. A zone whose file is bad stays as it is; one
// that is listed no more is not served any longer.
func (z *zoneFiles) reload() {
	files, err := z.all()
	if err != nil {
		z.log.Error(err, "reload failed: all zones stay as they are")
		return
	}
	var changed []*zone.Served
	var gone []zone.Name
	listed := make(map[zone.Name]bool, len(files))
	failed := 0
	for _, l := range loadZoneFiles(files, z.threads) {
		apex := l.file.Apex
		listed[apex] = true
		old := z.view.Zone(apex)
		switch {
		case l.err != nil && old == nil:
			failed++
			z.log.Error(l.err, "zone not loaded", "zone", apex.String())
		case l.err != nil:
			failed++
			z.log.Error(l.err, "zone not loaded, the old one stays", "zone", apex.String(), "serial", old.Version().Serial)
		case old != nil && old.Version() == l.zone.Version():
		default:
			z.warn(l)
			changed = append(changed, l.zone)
		}
	}
	for old := range z.view.Zones() {
		if !listed[old.Apex()] {
			gone = append(gone, old.Apex())
		}
	}
	z.view.Update(changed, gone)
	go debug.FreeOSMemory()
	z.log.Info("zones reloaded", "zones", z.view.Len(), "changed", len(changed), "removed", len(gone), "failed", failed)
}

// warn tells of what was left out of a zone without loss, in one line.
func (z *zoneFiles) warn(l loaded) {
	if len(l.warnings) > 0 {
		f := l.warnings[0]
		z.log.Info("zone loaded with warnings", "zone", l.file.Apex.String(), "warnings", len(l.warnings), "first", f.Place(l.file.Path)+": "+f.Err.Error())
	}
}
