package zone

import (
	"bytes"
	"testing"
)

// TestSetsTooLargeForAnyMessage: what cannot be answered even over TCP is left out.
func TestSetsTooLargeForAnyMessage(t *testing.T) {
	apex := mustName(t, "example.")
	owner := mustName(t, "a.example.")
	set := func(records int) RRset {
		var rdata [][]byte
		for i := range records {
			rdata = append(rdata, append([]byte{255, byte(i), byte(i >> 8)}, bytes.Repeat([]byte{'x'}, 253)...))
		}
		return NewRRset(TypeTXT, 60, rdata...)
	}
	const header, question, opt, record = 12, 11 + 4, 11, 12 + 256
	most := (MaxMessage - header - question - opt) / record
	for records, keeps := range map[int]bool{1: true, most: true, most + 1: false} {
		kept, dropped := CheckNode(apex, NewNode(owner, set(records), a(1)))
		if kept.Has(TypeTXT) != keeps || !kept.Has(TypeA) || (len(dropped) == 0) != keeps {
			t.Errorf("%d records: kept %t, dropped %v", records, kept.Has(TypeTXT), dropped)
		}
		if !keeps && (dropped[0].Err.Reason() != "RRsetTooLarge" || dropped[0].RRset.Len() != records || dropped[0].Harmless) {
			t.Errorf("dropped %v", dropped[0].Err)
		}
	}
}

// TestCheckNodeIsStable: what CheckNode keeps, it keeps again, and the input stays as it is.
func TestCheckNodeIsStable(t *testing.T) {
	apex := mustName(t, "example.")
	cname := NewRRset(TypeCNAME, 60, []byte("\x01x\x00"), []byte("\x01y\x00"))
	dname := NewRRset(TypeDNAME, 60, []byte("\x01x\x00"), []byte("\x01y\x00"))
	ns := NewRRset(TypeNS, 60, []byte("\x01x\x00"))
	soa := NewRRset(TypeSOA, 60, SOA{MName: Root, RName: Root}.Pack())
	for _, owner := range []Name{apex, mustName(t, "a.example.")} {
		for mask := range 32 {
			var sets []RRset
			for i, s := range []RRset{cname, dname, ns, soa, a(1)} {
				if mask>>i&1 == 1 {
					sets = append(sets, s)
				}
			}
			n := NewNode(owner, sets...)
			before := AppendNode(nil, n)
			kept, dropped := CheckNode(apex, n)
			if !bytes.Equal(before, AppendNode(nil, n)) {
				t.Fatalf("%v was changed", n)
			}
			again, more := CheckNode(apex, kept)
			if len(more) > 0 || !again.Equal(&kept) {
				t.Errorf("%v is kept of %v, and then %v", kept, n, again)
			}
			lost := 0
			for _, d := range dropped {
				lost += d.RRset.Len()
			}
			if kept.Records()+lost != n.Records() {
				t.Errorf("%v: %d records kept and %d dropped of %d", n, kept.Records(), lost, n.Records())
			}
		}
	}
}
