package probe

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What is read of an answer at most, in octets: fields before the body, and the body itself.
const (
	maxFields = 64 << 10
	maxBody   = 64 << 10
)

// request is an HTTP request with a small body or none.
type request struct {
	method, scheme, host, path string
	fields                     []field // besides those that every request has; names in lower case
	body                       []byte
}

type field struct{ name, value string }

// response is what of an answer is judged.
type response struct {
	status int
	// field returns the value of a field before or after the body, the first if there are several; empty: none.
	field func(name string) string
	body  []byte // at most maxBody octets of it, and only if it was asked for
}

// userAgent tells the owners of targets who asks.
const userAgent = "fingerpost-probe"

// errNonsense is what an exchange ends with if the answer is not HTTP.
var errNonsense = errors.New("not HTTP")

// exchange1 sends r and reads the answer in HTTP/1.1 (RFC 9112), for the connection to be closed afterwards. Without
// wantBody it ends when the status is known.
func exchange1(c io.ReadWriter, r request, wantBody bool) (response, error) {
	var b bytes.Buffer
	b.WriteString(r.method + " " + r.path + " HTTP/1.1\r\nHost: " + r.host +
		"\r\nUser-Agent: " + userAgent + "\r\nAccept: */*\r\nConnection: close\r\n")
	for _, f := range r.fields {
		b.WriteString(f.name + ": " + f.value + "\r\n")
	}
	if len(r.body) > 0 || r.method != http.MethodGet && r.method != http.MethodHead && r.method != http.MethodOptions {
		b.WriteString("Content-Length: " + strconv.Itoa(len(r.body)) + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	if _, err := c.Write(b.Bytes()); err != nil {
		return response{}, err
	}
	limited := &io.LimitedReader{R: c, N: maxFields}
	from := bufio.NewReaderSize(limited, 2<<10)
	about := &http.Request{Method: r.method}
	for range 8 { // answers that are only on their way (RFC 9110 15.2)
		answer, err := http.ReadResponse(from, about) //nolint:bodyclose // only reads on, which nobody needs
		if err != nil {
			return response{}, nonsense(err, limited.N == 0)
		}
		if answer.StatusCode < 200 && answer.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		got := response{status: answer.StatusCode, field: answer.Header.Get}
		if !wantBody {
			return got, nil
		}
		limited.N += maxBody + maxFields // chunks need more than what is in them
		got.body, err = io.ReadAll(io.LimitReader(answer.Body, maxBody))
		if err != nil {
			return response{}, nonsense(err, false)
		}
		return got, nil
	}
	return response{}, errNonsense
}

// nonsense returns errors of the connection as they are, and errNonsense for those about what came over it.
func nonsense(err error, tooLong bool) error {
	var system interface{ Timeout() bool }
	switch {
	case tooLong:
		return errNonsense
	case errors.As(err, &system), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	default:
		return errNonsense
	}
}

// exchange2 is exchange1 in HTTP/2 (RFC 9113), as the only stream of the connection. Fields after the body are read if
// the body is wanted.
func exchange2(c io.ReadWriter, r request, wantBody bool) (response, error) {
	if err := send2(c, r); err != nil {
		return response{}, err
	}
	var out bytes.Buffer // what the protocol has us answer
	limited := &io.LimitedReader{R: c, N: maxFields + maxBody + maxFields}
	frames := http2.NewFramer(&out, bufio.NewReaderSize(limited, 2<<10))
	frames.SetReuseFrames()
	frames.SetMaxReadFrameSize(16 << 10)
	frames.MaxHeaderListSize = maxFields
	frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var got response
	fields := map[string]string{}
	got.field = func(name string) string { return fields[name] }
	for {
		frame, err := frames.ReadFrame()
		if err != nil {
			return response{}, nonsense(err, limited.N == 0)
		}
		ended := false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = frames.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = frames.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != 1 || f.Truncated {
				return response{}, errNonsense
			}
			for _, h := range f.Fields {
				if _, known := fields[h.Name]; !known && !h.IsPseudo() {
					fields[h.Name] = h.Value
				}
			}
			if got.status == 0 {
				status, err := strconv.Atoi(f.PseudoValue("status"))
				if err != nil || status < 100 || status > 999 {
					return response{}, errNonsense
				}
				if status < 200 { // only on its way
					clear(fields)
				} else {
					got.status = status
				}
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			if f.StreamID != 1 || got.status == 0 {
				return response{}, errNonsense
			}
			got.body = append(got.body, f.Data()[:min(len(f.Data()), maxBody-len(got.body))]...)
			ended = f.StreamEnded() || len(got.body) == maxBody
		case *http2.RSTStreamFrame:
			if f.ErrCode == http2.ErrCodeNo && got.status != 0 { // a whole answer to a request not wholly read (8.1)
				return got, nil
			}
			return response{}, io.ErrUnexpectedEOF
		case *http2.GoAwayFrame:
			if f.LastStreamID < 1 {
				return response{}, io.ErrUnexpectedEOF
			}
		}
		if got.status != 0 && (ended || !wantBody) {
			return got, nil
		}
		if ended {
			return response{}, errNonsense
		}
		if out.Len() > 0 {
			if _, err := c.Write(out.Bytes()); err != nil {
				return response{}, err
			}
			out.Reset()
		}
	}
}

// send2 writes the begin of a connection and the request, in one piece.
func send2(c io.Writer, r request) error {
	var block, out bytes.Buffer
	fields := hpack.NewEncoder(&block)
	for _, f := range append([]field{
		{":method", r.method}, {":scheme", r.scheme}, {":authority", r.host}, {":path", r.path},
		{"user-agent", userAgent}, {"accept", "*/*"},
	}, r.fields...) {
		if err := fields.WriteField(hpack.HeaderField{Name: f.name, Value: f.value}); err != nil {
			return err
		}
	}
	out.WriteString(http2.ClientPreface)
	frames := http2.NewFramer(&out, nil)
	err := errors.Join(
		frames.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2 * maxBody},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxFields},
		),
		frames.WriteWindowUpdate(0, 2*maxBody),
		frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: len(r.body) == 0}),
	)
	if len(r.body) > 0 {
		err = errors.Join(err, frames.WriteData(1, true, r.body))
	}
	if err != nil {
		return err
	}
	_, err = c.Write(out.Bytes())
	return err
}

// plain reports whether the text can stand in a request: a host, or a path with its query.
func plain(text string) bool {
	for _, c := range []byte(text) {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return httpguts.ValidHeaderFieldValue(text)
}
