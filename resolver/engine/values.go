package engine

import (
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
type Anchor struct{ text string }

// ParseAnchor reads a record in presentation form, such as ". IN DS 12345 13 2 0123...".
func ParseAnchor(text string) (Anchor, error) {
	rr, err := dns.NewRR(text)
	if err != nil {
		return Anchor{}, fmt.Errorf("trust anchor %q: %w", text, err)
	}
	if rr == nil {
		return Anchor{}, fmt.Errorf("trust anchor %q is no record", text)
	}
	owner, err := ParseName(rr.Header().Name)
	if err != nil {
		return Anchor{}, fmt.Errorf("trust anchor: %w", err)
	}
	rr.Header().Name = owner.text
	switch rr := rr.(type) {
	case *dns.DS:
		return Anchor{strings.Join(strings.Fields(rr.String()), " ")}, nil
	case *dns.DNSKEY:
		return Anchor{strings.Join(strings.Fields(rr.String()), " ")}, nil
	default:
		return Anchor{}, fmt.Errorf("trust anchor %q is neither DS nor DNSKEY", text)
	}
}

// String is the record on one line: owner, TTL, class, type, fields.
func (a Anchor) String() string { return a.text }

// Owner is the zone that the anchor is of.
func (a Anchor) Owner() string { return strings.Fields(a.text)[0] }

// DS is the data of the anchor as a DS record: of a DNSKEY the one with its SHA-256 digest (RFC 4509).
func (a Anchor) DS() string {
	rr, err := dns.NewRR(a.text)
	if err != nil {
		panic("an Anchor is a record: " + err.Error())
	}
	if key, ok := rr.(*dns.DNSKEY); ok {
		rr = key.ToDS(dns.SHA256)
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

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
