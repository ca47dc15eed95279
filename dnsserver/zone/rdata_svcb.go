package zone

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

func isSVCB(typ uint16) bool { return typ == TypeSVCB || typ == TypeHTTPS }

// Keys of service parameters with a form of their own (RFC 9460 §14.3.2, RFC 9461, RFC 9540).
const (
	svcMandatory uint16 = iota
	svcALPN
	svcNoDefaultALPN
	svcPort
	svcIPv4Hint
	svcECH
	svcIPv6Hint
	svcDoHPath
	svcOHTTP
)

var svcKeys = []string{"mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"}

func svcKeyString(key uint16) string {
	if int(key) < len(svcKeys) {
		return svcKeys[key]
	}
	return "key" + strconv.Itoa(int(key))
}

// parseSvcKey reads a key's name; plain tells that it was given as keyNNNNN, whose value is
// octets whatever the key (RFC 9460 §2.1).
func parseSvcKey(s string) (key uint16, plain, ok bool) {
	if i := slices.Index(svcKeys, s); i >= 0 {
		return uint16(i), false, true
	}
	digits, found := strings.CutPrefix(s, "key")
	v, err := strconv.ParseUint(digits, 10, 16)
	if !found || err != nil || digits[0] == '+' || len(digits) > 1 && digits[0] == '0' || v == 65535 {
		return 0, false, false
	}
	return uint16(v), true, true
}

type svcParam struct {
	key   uint16
	value []byte
}

// svcb reads the presentation form of SVCB and HTTPS (RFC 9460 §2.1).
func (r *rdataReader) svcb(dst []byte) ([]byte, error) {
	dst, err := r.field(dst, field{"priority", kindU16})
	if err != nil {
		return nil, err
	}
	t, text, ok := r.take()
	switch {
	case !ok:
		return nil, errors.New("target is missing")
	case t.quoted || t.inner:
		return nil, fmt.Errorf("target %s must not be quoted", shown(text))
	}
	if dst, err = r.name(dst, "target", text, false); err != nil {
		return nil, err
	}
	var params []svcParam
	for r.more() {
		t, text, _ := r.take()
		if t.quoted {
			return nil, fmt.Errorf("%s in quotes is no KEY=VALUE", shown(text))
		}
		p, err := parseSvcParam(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(params, func(o svcParam) bool { return o.key == p.key }) {
			return nil, fmt.Errorf("%s comes twice", svcKeyString(p.key))
		}
		if len(p.value) > maxRData {
			return nil, fmt.Errorf("%s is too long", svcKeyString(p.key))
		}
		params = append(params, p)
	}
	slices.SortFunc(params, func(a, b svcParam) int { return int(a.key) - int(b.key) })
	for _, p := range params {
		dst = binary.BigEndian.AppendUint16(dst, p.key)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.value)))
		dst = append(dst, p.value...)
	}
	return dst, nil
}

func parseSvcParam(text string) (svcParam, error) {
	name, raw, hasValue := strings.Cut(text, "=")
	key, plain, ok := parseSvcKey(name)
	if !ok {
		return svcParam{}, fmt.Errorf("%s is no service parameter: known are %s, and key0 to key65534", shown(name), strings.Join(svcKeys, ", "))
	}
	not := func(want string) error { return fmt.Errorf("%s=%s is not %s", name, shown(raw), want) }
	if unquoted, ok := strings.CutPrefix(raw, `"`); ok {
		// The lexer closes every quote it opens.
		unquoted, ok = strings.CutSuffix(unquoted, `"`)
		if !ok {
			return svcParam{}, not("one quoted value")
		}
		raw = unquoted
	}
	octets, err := appendUnescaped(nil, raw)
	if err != nil {
		return svcParam{}, fmt.Errorf("%s=%s %w", name, shown(raw), err)
	}
	p := svcParam{key: key, value: octets}
	value := string(octets)
	switch {
	case plain:
	case key == svcNoDefaultALPN || key == svcOHTTP:
		if hasValue && value != "" {
			return svcParam{}, not("allowed, it has no value")
		}
	case value == "":
		return svcParam{}, fmt.Errorf("%s wants a value", name)
	case key == svcMandatory:
		var keys []uint16
		for s := range strings.SplitSeq(value, ",") {
			k, _, ok := parseSvcKey(s)
			if !ok {
				return svcParam{}, not("a list of keys such as alpn,port")
			}
			keys = append(keys, k)
		}
		slices.Sort(keys)
		p.value = nil
		for _, k := range keys {
			p.value = binary.BigEndian.AppendUint16(p.value, k)
		}
	case key == svcALPN:
		p.value = nil
		for _, id := range splitSvcList(value) {
			if id == "" || len(id) > 255 {
				return svcParam{}, not("a list of protocol names such as h2,h3")
			}
			p.value = append(append(p.value, byte(len(id))), id...)
		}
	case key == svcPort:
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil || value[0] == '+' {
			return svcParam{}, not("a port 0-65535")
		}
		p.value = binary.BigEndian.AppendUint16(nil, uint16(port))
	case key == svcIPv4Hint, key == svcIPv6Hint:
		p.value = nil
		for s := range strings.SplitSeq(value, ",") {
			ip, err := netip.ParseAddr(s)
			switch {
			case key == svcIPv4Hint && (err != nil || !ip.Is4()):
				return svcParam{}, not("a list of IPv4 addresses")
			case key == svcIPv6Hint && (err != nil || !ip.Is6() || ip.Zone() != ""):
				return svcParam{}, not("a list of IPv6 addresses")
			}
			p.value = append(p.value, ip.AsSlice()...)
		}
	case key == svcECH:
		if p.value, err = base64.StdEncoding.DecodeString(value); err != nil {
			return svcParam{}, not("base64")
		}
	}
	return p, nil
}

// splitSvcList divides a value at commas; \, and \\ stand for a comma and a backslash inside
// an item (RFC 9460 appendix A.1).
func splitSvcList(value string) []string {
	var items []string
	var item []byte
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value):
			i++
			item = append(item, value[i])
		case value[i] == ',':
			items = append(items, string(item))
			item = item[:0]
		default:
			item = append(item, value[i])
		}
	}
	return append(items, string(item))
}

// splitSVCB divides well-formed rdata up to the values, without looking into these.
func splitSVCB(rdata string) (priority uint16, target string, params []svcParam, err error) {
	if len(rdata) < 3 {
		return 0, "", nil, errors.New("priority or target is cut short")
	}
	priority = uint16(rdata[0])<<8 | uint16(rdata[1])
	rest := rdata[2:]
	size := nameSize(rest)
	if size < 0 {
		return 0, "", nil, errors.New("target is not well formed")
	}
	target, rest = rest[:size], rest[size:]
	for last := -1; rest != ""; {
		if len(rest) < 4 {
			return 0, "", nil, errors.New("a service parameter is cut short")
		}
		key := uint16(rest[0])<<8 | uint16(rest[1])
		length := int(rest[2])<<8 | int(rest[3])
		if rest = rest[4:]; len(rest) < length {
			return 0, "", nil, fmt.Errorf("%s is cut short", svcKeyString(key))
		}
		if int(key) <= last {
			return 0, "", nil, errors.New("service parameters are not in order")
		}
		last = int(key)
		params = append(params, svcParam{key, []byte(rest[:length])})
		rest = rest[length:]
	}
	return priority, target, params, nil
}

// checkSVCB holds the rules of RFC 9460 §7 and §8 for single parameters and between them.
func checkSVCB(rdata string) error {
	_, _, params, err := splitSVCB(rdata)
	if err != nil {
		return err
	}
	has := func(key uint16) bool {
		return slices.ContainsFunc(params, func(p svcParam) bool { return p.key == key })
	}
	for _, p := range params {
		defect := ""
		switch p.key {
		case svcMandatory:
			defect = mandatoryDefect(p.value, has)
		case svcALPN:
			rest := p.value
			for len(rest) > 0 && rest[0] > 0 && len(rest) > int(rest[0]) {
				rest = rest[1+int(rest[0]):]
			}
			if len(p.value) == 0 || len(rest) > 0 {
				defect = "is not a list of protocol names"
			}
		case svcNoDefaultALPN:
			if len(p.value) > 0 {
				defect = "has a value"
			} else if !has(svcALPN) {
				defect = "needs alpn"
			}
		case svcOHTTP:
			if len(p.value) > 0 {
				defect = "has a value"
			}
		case svcPort:
			if len(p.value) != 2 {
				defect = "is not a port"
			}
		case svcIPv4Hint:
			if len(p.value) == 0 || len(p.value)%4 > 0 {
				defect = "is not a list of IPv4 addresses"
			}
		case svcIPv6Hint:
			if len(p.value) == 0 || len(p.value)%16 > 0 {
				defect = "is not a list of IPv6 addresses"
			}
		case svcECH, svcDoHPath:
			if len(p.value) == 0 {
				defect = "is empty"
			}
		case 65535:
			defect = "is reserved"
		}
		if defect != "" {
			return fmt.Errorf("%s %s", svcKeyString(p.key), defect)
		}
	}
	return nil
}

func mandatoryDefect(value []byte, has func(uint16) bool) string {
	if len(value) == 0 || len(value)%2 > 0 {
		return "is not a list of keys"
	}
	last := -1
	for i := 0; i < len(value); i += 2 {
		key := binary.BigEndian.Uint16(value[i:])
		switch {
		case key == svcMandatory:
			return "lists itself"
		case int(key) <= last:
			return "lists a key twice or not in order"
		case !has(key):
			return fmt.Sprintf("lists %s, which is missing", svcKeyString(key))
		}
		last = int(key)
	}
	return ""
}

// svcbString is the presentation form of well-formed rdata.
func svcbString(rdata string) string {
	priority, target, params, _ := splitSVCB(rdata)
	b := strconv.AppendUint(nil, uint64(priority), 10)
	b = append(append(b, ' '), Name(target).String()...)
	for _, p := range params {
		b = append(b, ' ')
		b = p.appendString(b)
	}
	return string(b)
}

func (p svcParam) appendString(b []byte) []byte {
	name := svcKeyString(p.key)
	var items []string
	switch p.key {
	case svcNoDefaultALPN, svcOHTTP:
		return append(b, name...)
	case svcMandatory:
		for i := 0; i < len(p.value); i += 2 {
			items = append(items, svcKeyString(binary.BigEndian.Uint16(p.value[i:])))
		}
	case svcALPN:
		for rest := p.value; len(rest) > 0; rest = rest[1+int(rest[0]):] {
			id := string(rest[1 : 1+int(rest[0])])
			if strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`",;()\`, r) }) {
				// As octets of the numbered key: one level of escapes, not two.
				return appendQuoted(fmt.Appendf(b, "key%d=", p.key), string(p.value))
			}
			items = append(items, id)
		}
	case svcPort:
		items = append(items, strconv.Itoa(int(binary.BigEndian.Uint16(p.value))))
	case svcIPv4Hint, svcIPv6Hint:
		size := 4
		if p.key == svcIPv6Hint {
			size = 16
		}
		for octets := range slices.Chunk(p.value, size) {
			ip, _ := netip.AddrFromSlice(octets)
			items = append(items, ip.String())
		}
	case svcECH:
		items = append(items, base64.StdEncoding.EncodeToString(p.value))
	default:
		if len(p.value) == 0 {
			return append(b, name...)
		}
		return appendQuoted(append(append(b, name...), '='), string(p.value))
	}
	b = append(append(b, name...), '=')
	return append(b, strings.Join(items, ",")...)
}
