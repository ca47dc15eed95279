package engine

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Values that end up in files of three syntaxes are checked when they are read: inside, none can hold a quote, a blank or a
// line's end, so that none can be read as anything else.

// Name is an absolute domain name of letters, digits, hyphens and underscores, in lower case with its final dot; "." is
// the root. The zero Name is none.
type Name struct{ text string }

var plainName = regexp.MustCompile(`^([a-z0-9_-]+\.)+$|^\.$`)

// ParseName reads a name with or without its final dot.
func ParseName(text string) (Name, error) {
	n, err := zone.ParseName(text, "")
	if err != nil {
		return Name{}, err
	}
	if s := n.String(); plainName.MatchString(s) {
		return Name{s}, nil
	}
	return Name{}, fmt.Errorf("name %q has other characters than letters, digits, hyphens and underscores", text)
}

func (n Name) String() string { return n.text }

// MarshalText implements encoding.TextMarshaler.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.text), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Name) UnmarshalText(text []byte) (err error) {
	*n, err = ParseName(string(text))
	return err
}

// Path is the absolute path of a file that somebody else provides: a certificate, a zone, a socket. The zero Path is none.
type Path struct{ text string }

var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._@:+-]+)+$`)

// ParsePath reads a path.
func ParsePath(text string) (Path, error) {
	if !plainPath.MatchString(text) {
		return Path{}, fmt.Errorf("path %q is not absolute, or has other characters than letters, digits and ._@:+-", text)
	}
	return Path{text}, nil
}

func (p Path) String() string { return p.text }

// MarshalText implements encoding.TextMarshaler.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Path) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePath(string(text))
	return err
}

// Anchor is a DS or DNSKEY record that answers are validated from (RFC 4033 §2). The zero Anchor is none.
type Anchor struct {
	text  string // on one line, written anew from numbers and octets
	owner Name
	ds    string
}

// digestSizes are those of DS records' digests, in octets, by type (RFC 4034 §5.1.3, RFC 4509, RFC 6605).
var digestSizes = map[uint8]int{dns.SHA1: 20, dns.SHA256: 32, dns.SHA384: 48}

// keySizes are those of the keys that have one size, in octets, by algorithm (RFC 6605 §4, RFC 8080 §3).
var keySizes = map[uint8]int{dns.ECDSAP256SHA256: 64, dns.ECDSAP384SHA384: 96, dns.ED25519: 32, dns.ED448: 57}

// ParseAnchor reads a record in presentation form, such as ". IN DS 12345 13 2 0123...".
func ParseAnchor(text string) (Anchor, error) {
	defect := func(format string, args ...any) (Anchor, error) {
		return Anchor{}, fmt.Errorf("trust anchor %q %s", text, fmt.Sprintf(format, args...))
	}
	records := dns.NewZoneParser(strings.NewReader(text+"\n"), ".", "")
	records.SetDefaultTTL(3600)
	rr, is := records.Next()
	_, more := records.Next()
	switch {
	case records.Err() != nil:
		return Anchor{}, fmt.Errorf("trust anchor %q: %w", text, records.Err())
	case !is:
		return defect("is no record")
	case more:
		return defect("is more than one record")
	}
	h := rr.Header()
	owner, err := ParseName(h.Name)
	switch {
	case err != nil:
		return Anchor{}, fmt.Errorf("trust anchor: %w", err)
	case h.Class != dns.ClassINET:
		return defect("is of another class than IN")
	}
	h.Name = owner.text
	a := Anchor{owner: owner}
	switch rr := rr.(type) {
	case *dns.DS:
		digest, err := hex.DecodeString(rr.Digest)
		size, known := digestSizes[rr.DigestType]
		switch {
		case !known:
			return defect("has a digest of type %d, and may have 1, 2 and 4", rr.DigestType)
		case err != nil || len(digest) != size:
			return defect("has a digest that is not %d octets as hexadecimal digits", size)
		}
		a.ds = fmt.Sprintf("%d %d %d %X", rr.KeyTag, rr.Algorithm, rr.DigestType, digest)
		a.text = fmt.Sprintf("%s %d IN DS %s", owner, h.Ttl, a.ds)
	case *dns.DNSKEY:
		key, err := base64.StdEncoding.DecodeString(rr.PublicKey)
		size := cmp.Or(keySizes[rr.Algorithm], len(key))
		switch {
		case err != nil || len(key) == 0:
			return defect("has a key that is not base64")
		case len(key) != size:
			return defect("has a key of %d octets, and those of its algorithm have %d", len(key), size)
		case rr.Protocol != 3:
			return defect("has protocol %d, and has to have 3 (RFC 4034 §2.1.2)", rr.Protocol)
		case rr.Flags&^dns.SEP != dns.ZONE:
			return defect("has flags %d, and may have 256 and 257", rr.Flags)
		}
		rr.PublicKey = base64.StdEncoding.EncodeToString(key)
		ds := rr.ToDS(dns.SHA256)
		if ds == nil {
			return defect("has a key that no digest can be made of")
		}
		a.ds = fmt.Sprintf("%d %d %d %s", ds.KeyTag, ds.Algorithm, ds.DigestType, strings.ToUpper(ds.Digest))
		a.text = fmt.Sprintf("%s %d IN DNSKEY %d %d %d %s", owner, h.Ttl, rr.Flags, rr.Protocol, rr.Algorithm, rr.PublicKey)
	default:
		return defect("is neither DS nor DNSKEY")
	}
	return a, nil
}

// String is the record on one line: owner, TTL, class, type, fields.
func (a Anchor) String() string { return a.text }

// Owner is the zone that the anchor is of.
func (a Anchor) Owner() string { return a.owner.text }

// DS is the data of the anchor as a DS record: of a DNSKEY the one with its SHA-256 digest (RFC 4509).
func (a Anchor) DS() string { return a.ds }

// MarshalText implements encoding.TextMarshaler.
func (a Anchor) MarshalText() ([]byte, error) { return []byte(a.text), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Anchor) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAnchor(string(text))
	return err
}

// Duration is a length of time, as text in the form of the API: "30s", "1h30m".
type Duration time.Duration

// Seconds is the number of whole seconds, rounded up.
func (d Duration) Seconds() int64 { return int64((time.Duration(d) + time.Second - 1) / time.Second) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	if v < 0 {
		return fmt.Errorf("duration %q is below zero", text)
	}
	*d = Duration(v)
	return nil
}
