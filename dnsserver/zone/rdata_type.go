package zone

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Record types that only the presentation form and the checks need names for.
const (
	typeHINFO      uint16 = 13
	typeMINFO      uint16 = 14
	typeRP         uint16 = 17
	typeAFSDB      uint16 = 18
	typeRT         uint16 = 21
	typeSIG        uint16 = 24
	typeKEY        uint16 = 25
	typePX         uint16 = 26
	typeNXT        uint16 = 30
	typeKX         uint16 = 36
	typeAPL        uint16 = 42
	typeSSHFP      uint16 = 44
	typeDHCID      uint16 = 49
	typeTLSA       uint16 = 52
	typeSMIMEA     uint16 = 53
	typeOPENPGPKEY uint16 = 61
	typeSPF        uint16 = 99
	typeURI        uint16 = 256
	typeCAA        uint16 = 257
	typeDLV        uint16 = 32769
)

// TypeString returns the mnemonic of a type, or TYPE123 for one without (RFC 3597 §5).
func TypeString(typ uint16) string {
	if s, ok := mnemonics[typ]; ok {
		return s
	}
	return "TYPE" + strconv.Itoa(int(typ))
}

// TypeFromString reads a mnemonic or TYPE123 in any case. Query types such as ANY count;
// IsData tells them apart.
func TypeFromString(s string) (typ uint16, ok bool) {
	var buf [16]byte
	if len(s) > len(buf) {
		return 0, false
	}
	upper := buf[:len(s)]
	for i := range len(s) {
		if upper[i] = s[i]; 'a' <= s[i] && s[i] <= 'z' {
			upper[i] -= 'a' - 'A'
		}
	}
	if typ, ok = types[string(upper)]; ok {
		return typ, true
	}
	return numbered(upper, "TYPE")
}

// numbered reads what is left of s after prefix as a decimal number of 16 bits.
func numbered(s []byte, prefix string) (uint16, bool) {
	digits, ok := strings.CutPrefix(string(s), prefix)
	if !ok || digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	v, err := strconv.ParseUint(digits, 10, 16)
	return uint16(v), err == nil
}

// IsData reports whether records of the type can stand in a zone: not OPT, nor the types 128
// to 255, which are for queries and transactions (RFC 6895 §3.1), nor the reserved 0 and 65535.
func IsData(typ uint16) bool {
	return typ != 0 && typ != TypeOPT && (typ < 128 || typ > 255) && typ != 65535
}

// mnemonics and types are the registry as far as miekg/dns knows it.
var (
	mnemonics = func() map[uint16]string {
		m := map[uint16]string{}
		for typ, s := range dns.TypeToString {
			if typ != 0 && typ != 65535 { // not types: "None", "Reserved"
				m[typ] = s
			}
		}
		return m
	}()
	types = func() map[string]uint16 {
		m := map[string]uint16{}
		for typ, s := range mnemonics {
			m[s] = typ
		}
		return m
	}()
)

// checkData refuses types of which a zone can have no records.
func checkData(typ uint16) error {
	switch {
	case IsPrivate(typ):
		return &EntryError{"UnknownType", fmt.Sprintf("type %s tells servers of steered names and is no record that a zone states", TypeString(typ))}
	case IsData(typ):
		return nil
	}
	return &EntryError{"UnknownType", fmt.Sprintf("type %s is for queries and transactions, zones have no such records", TypeString(typ))}
}
