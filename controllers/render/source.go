package render

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// inline is the name of the records written in the zone's own spec, as in findings.
const inline = "spec.records"

// source is one parsed source of records.
type source struct {
	name     string
	version  string
	owners   map[zone.Name][]zone.Record // in the order of lines
	records  int                         // of the zone, those left out while parsing do not count
	serial   uint32                      // of an imported SOA, 0 if there is none
	findings []v1alpha1.Finding
	unknown  bool // missing, and its last content is not remembered
}

// parse parses every source that changed since prev; spec.records is the first.
func (r *Result) parse(in Inputs, prev *Result) []*source {
	remembered := map[string]*source{}
	if prev != nil && prev.settings.apex == r.settings.apex {
		for _, s := range prev.sources {
			remembered[s.name] = s
		}
	}
	sources := make([]*source, 0, 1+len(in.Sources))
	version := fmt.Sprintf("%s/%d", in.Zone.UID, in.Zone.Generation)
	if known := remembered[inline]; known != nil && known.version == version {
		sources = append(sources, known)
	} else {
		sources = append(sources, r.parseInline(in, version))
	}
	for _, src := range in.Sources {
		switch known := remembered[src.Name]; {
		case src.Missing:
			sources = append(sources, missing(src, known))
		case known != nil && known.version == src.Version:
			sources = append(sources, known)
		default:
			sources = append(sources, r.parseText(src))
		}
	}
	return sources
}

// missing is a source whose ConfigMap or key is gone: it keeps its last content, if that is known.
func missing(src Source, known *source) *source {
	kept := &source{name: src.Name, unknown: true}
	message := "the ConfigMap, or its key, does not exist"
	if known != nil {
		*kept = *known
		kept.version = "" // whatever comes next is new
		kept.findings = slices.DeleteFunc(slices.Clone(known.findings), func(f v1alpha1.Finding) bool {
			return f.Reason == v1alpha1.FindingSourceMissing
		})
	}
	if known != nil && known.records > 0 {
		message += fmt.Sprintf("; its last content (%s) goes on being served", count(known.records, "record"))
	}
	kept.findings = append(kept.findings, v1alpha1.Finding{Source: src.Name, Reason: v1alpha1.FindingSourceMissing, Message: message})
	return kept
}

func (r *Result) parseText(src Source) *source {
	s := &source{name: src.Name, version: src.Version}
	var records []zone.Record
	for rec, fault := range zone.ParseMaster(src.Text, r.settings.apex) {
		if fault != nil {
			s.findings = append(s.findings, v1alpha1.Finding{
				Source: src.Name, Line: int32(fault.Line), Record: clip(fault.Text, 200), Reason: fault.Reason(),
				Message: fmt.Sprintf("left out: %s (column %d)", clip(fault.Err.Error(), 950), fault.Column),
			})
			continue
		}
		records = append(records, rec)
	}
	s.owners = make(map[zone.Name][]zone.Record, len(records)/2)
	r.admit(s, records)
	return s
}

func (r *Result) parseInline(in Inputs, version string) *source {
	s := &source{name: inline, version: version}
	spec := &in.Zone.Spec
	classes := map[string]uint32{}
	for _, c := range spec.TTL.Classes {
		classes[c.Name] = seconds(c.TTL, r.settings.ttl)
	}
	var records []zone.Record
	for _, rec := range spec.Records {
		report := func(reason, format string, args ...any) {
			s.findings = append(s.findings, v1alpha1.Finding{
				Source: inline, Record: fmt.Sprintf("%s %s", rec.Name, rec.Type), Reason: reason, Message: clip(fmt.Sprintf(format, args...), 1000),
			})
		}
		owner, err := zone.ParseName(rec.Name, r.settings.apex)
		if err != nil {
			report(v1alpha1.FindingBadName, "left out: %v", err)
			continue
		}
		typ, known := zone.TypeFromString(string(rec.Type))
		if !known {
			report(v1alpha1.FindingUnknownType, "left out: %q is no record type", rec.Type)
			continue
		}
		out := zone.Record{Owner: owner, Type: typ}
		switch {
		case rec.TTL == nil:
		case rec.TTL.Value != nil:
			out.TTL, out.HasTTL = seconds(*rec.TTL.Value, r.settings.ttl), true
		default:
			if out.TTL, out.HasTTL = classes[rec.TTL.Class]; !out.HasTTL {
				report(v1alpha1.FindingUnknownTTLClass, "ttl.class %q is not one of the zone's ttl.classes; the default TTL is served", rec.TTL.Class)
			}
		}
		for _, value := range rec.Values {
			out.RData, err = zone.ParseRData(typ, value, r.settings.apex)
			if err != nil {
				report(reasonOf(err, v1alpha1.FindingBadValue), "value %q is left out: %v", clip(value, 100), err)
				continue
			}
			records = append(records, out)
		}
	}
	s.owners = make(map[zone.Name][]zone.Record, len(records))
	r.admit(s, records)
	return s
}

// admit sorts records into their owners and leaves out what no zone here may import: names
// of other zones, the SOA and NS of the apex, and the DNSSEC records of a zone that is not
// signed. The latter are counted by type: an imported zone is full of them.
func (r *Result) admit(s *source, records []zone.Record) {
	type group struct{ reason, record, why string }
	counts := map[group]int{}
	lines := map[group]int{}
	for _, rec := range records {
		var why group
		switch {
		case !rec.Owner.Within(r.settings.apex):
			s.findings = append(s.findings, finding(s.name, rec, v1alpha1.FindingOutOfZone,
				fmt.Sprintf("left out: the name is not in zone %s", r.settings.apex)))
			continue
		case rec.Type == zone.TypeSOA:
			if soa, err := zone.ParseSOA(string(rec.RData)); err == nil && rec.Owner == r.settings.apex {
				s.serial = max(s.serial, soa.Serial)
			}
			why = group{v1alpha1.FindingOperatorOwned, rec.Owner.String() + " SOA", "the operator makes the SOA of the zone, see spec.soa and spec.ttl"}
		case rec.Type == zone.TypeNS && rec.Owner == r.settings.apex:
			why = group{v1alpha1.FindingOperatorOwned, rec.Owner.String() + " NS", "the operator makes the NS records of the zone itself"}
		case zone.IsSigning(rec.Type):
			why = group{v1alpha1.FindingDNSSECNotSigned, zone.TypeString(rec.Type), "the zone is not signed"}
		default:
			s.owners[rec.Owner] = append(s.owners[rec.Owner], rec)
			s.records++
			continue
		}
		if counts[why]++; counts[why] == 1 {
			lines[why] = rec.Line
		}
	}
	for why, n := range counts {
		s.findings = append(s.findings, v1alpha1.Finding{
			Source: s.name, Line: int32(lines[why]), Record: why.record, Reason: why.reason,
			Message: fmt.Sprintf("%s left out, the first of them here: %s", count(n, "record"), why.why),
		})
	}
	slices.SortFunc(s.findings, func(a, b v1alpha1.Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Record, b.Record), cmp.Compare(a.Message, b.Message))
	})
}

// SourceRecords counts the records of every source, by its name.
func (r *Result) SourceRecords() map[string]int {
	counts := make(map[string]int, len(r.sources))
	for _, s := range r.sources {
		if s.records > 0 {
			counts[s.name] = s.records
		}
	}
	return counts
}

// reasonOf returns the reason that an error carries, or the other one.
func reasonOf(err error, other string) string {
	if r, ok := err.(interface{ Reason() string }); ok {
		return r.Reason()
	}
	return other
}

// clip shortens text to n octets, on the boundary of a character.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-3], "") + "..."
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Parsed reports whether the result holds the source in that version, so that its text need
// not be read again. A nil result holds none.
func (r *Result) Parsed(name, version string) bool {
	if r == nil {
		return false
	}
	return slices.ContainsFunc(r.sources, func(s *source) bool { return s.name == name && s.version == version })
}
