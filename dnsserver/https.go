package dnsserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const (
	pathDoH     = "/dns-query"
	pathResolve = "/resolve"
	typeMessage = "application/dns-message"

	// maxHeader bounds the header of a request, in octets. Questions are far shorter, also in a URL.
	maxHeader = 16 << 10
	// maxAsked is how many requests may be under way, most of them waiting for the rest of what
	// the client sends. For more, connections have to go as when there are too many of these.
	maxAsked = 4096
	// maxConcurrent bounds requests under way in one connection of HTTP/2 (RFC 9113 §6.5.2).
	maxConcurrent = 100
)

// web answers over HTTP what comes to one address: DNS over HTTPS under TLS, and HTTPDNS.
type web struct {
	listener *listener
	panics   *panics
	doh      *exchanges // nil in clear text, where there is no DNS over HTTPS
	httpdns  *exchanges
	resolves atomic.Bool // whether there is HTTPDNS
	ending   atomic.Bool

	server *http.Server
	ready  chan net.Conn // to the server
	closed chan struct{}
}

func newWeb(ls *listeners, l *listener) *web {
	w := &web{
		listener: l, panics: ls.panics, httpdns: ls.exchanges[overHTTPDNS],
		ready: make(chan net.Conn), closed: make(chan struct{}),
	}
	if l.over == overDoH {
		w.doh = ls.exchanges[overDoH]
	}
	opts := &ls.streams.opts
	w.server = &http.Server{
		Handler:           w,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: opts.IdleTimeout,
		ReadTimeout:       opts.IdleTimeout,
		WriteTimeout:      opts.IdleTimeout + opts.WriteTimeout, // counted from the header on
		IdleTimeout:       opts.IdleTimeout,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxConcurrent,
			MaxReceiveBufferPerConnection: 1 << 17,
			MaxReceiveBufferPerStream:     1 << 16,
			WriteByteTimeout:              opts.WriteTimeout,
		},
		ErrorLog: log.New(io.Discard, "", 0), // clients' faults, a line each
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, streamKey{}, streamOf(conn))
		},
	}
	return w
}

type streamKey struct{}

func contextWithStream(ctx context.Context, c *stream) context.Context {
	return context.WithValue(ctx, streamKey{}, c)
}

// streamOf returns the stream that a connection was made of by take.
func streamOf(conn net.Conn) *stream {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	return conn.(*wire).stream
}

// take hands c over to the HTTP server, which drops it.
func (w *web) take(c *stream) {
	conn := c.Conn
	if conn == c.tcp {
		conn = &wire{TCPConn: c.tcp, stream: c}
	}
	select {
	case w.ready <- conn:
	case <-w.closed:
		c.drop()
	}
}

// Accept implements net.Listener for the HTTP server.
func (w *web) Accept() (net.Conn, error) {
	select {
	case conn := <-w.ready:
		return conn, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (w *web) Addr() net.Addr { return w.listener.Addr() }

// Close implements net.Listener; the server calls it once.
func (w *web) Close() error {
	close(w.closed)
	return nil
}

// serve answers until the end of draining.
func (w *web) serve() error {
	if err := w.server.Serve(w); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain lets clients know, with every answer, that their connection ends, and ends all at the
// given time. What they asked before is answered.
func (w *web) drain(until time.Time) {
	w.ending.Store(true)
	time.AfterFunc(time.Until(until), func() {
		_ = w.server.Close()
		w.listener.streams.cut(w.listener) // what the server was about to take
	})
}

// ServeHTTP implements http.Handler.
func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(streamKey{}).(*stream)
	all := w.listener.streams
	defer all.asked.Add(-1)
	if all.asked.Add(1) > maxAsked {
		all.makeRoom()
	}
	defer func() {
		if cause := recover(); cause != nil {
			w.panics.note(cause, nil, c.client)
			panic(http.ErrAbortHandler)
		}
	}()
	if w.ending.Load() {
		out.Header().Set("Connection", "close")
	}
	var response webResponse
	switch {
	case r.URL.Path == pathDoH && w.doh != nil:
		response = w.query(r, c)
	case r.URL.Path == pathResolve && w.resolves.Load():
		response = w.resolve(r, c)
	default:
		response = refused(http.StatusNotFound, "there is nothing here")
	}
	all.touch(c)
	response.write(out, all)
}

// webResponse is what is sent. The body is not changed any more.
type webResponse struct {
	status      int
	contentType string
	maxAge      int64 // seconds that the answer holds; negative for not at all
	allow       string
	body        []byte
}

func refused(status int, format string, args ...any) webResponse {
	return webResponse{status: status, contentType: "text/plain; charset=utf-8", maxAge: -1, body: fmt.Appendf(nil, format+"\n", args...)}
}

func (r webResponse) write(out http.ResponseWriter, all *streams) {
	size := int64(len(r.body))
	all.unsent.Add(size)
	defer all.unsent.Add(-size)
	if patience := all.patience(); size > keptReplies && patience < all.opts.WriteTimeout {
		_ = http.NewResponseController(out).SetWriteDeadline(time.Now().Add(patience)) // else it has what the server gives
	}
	h := out.Header()
	h.Set("Content-Type", r.contentType)
	h.Set("Content-Length", strconv.Itoa(len(r.body)))
	h.Set("X-Content-Type-Options", "nosniff")
	if r.maxAge < 0 {
		h.Set("Cache-Control", "no-store")
	} else {
		// An answer may depend on the client's address: it is for no one else (RFC 8484 §5.1).
		h.Set("Cache-Control", "private, max-age="+strconv.FormatInt(r.maxAge, 10))
	}
	if r.allow != "" {
		h.Set("Allow", r.allow)
	}
	out.WriteHeader(r.status)
	_, _ = out.Write(r.body) // a client that is gone needs no answer
}

// query answers DNS over HTTPS (RFC 8484 §4). Whatever DNS has an answer to, be it FORMERR, is a
// success of HTTP (§4.2.1).
func (w *web) query(r *http.Request, c *stream) webResponse {
	message, fault := w.message(r)
	if fault != nil {
		return *fault
	}
	defer w.turn(c)()
	if r.Context().Err() != nil {
		return refused(http.StatusServiceUnavailable, "you have gone")
	}
	x := w.doh.get()
	defer w.doh.put(x)
	x.responder.scratch.KeepAlive = 0 // which HTTP has ways of its own for
	reply := x.responder.answer(x.reply[:0], message, c.client)
	if reply == nil {
		return refused(http.StatusBadRequest, "this is no DNS query")
	}
	return webResponse{status: http.StatusOK, contentType: typeMessage, maxAge: maxAge(reply), body: bytes.Clone(reply)}
}

// turn waits for the client's turn, which end ends.
func (w *web) turn(c *stream) (end func()) {
	turns := &w.listener.streams.turns
	turns.begin(c.client)
	return turns.end
}

// maxAge is for how long a reply holds, by the smallest of its TTLs (RFC 8484 §5.1).
func maxAge(reply []byte) int64 {
	ttl, ok := zone.SmallestTTL(reply)
	if !ok {
		return -1
	}
	return int64(ttl)
}

// message returns the DNS message of a request, or what to say instead of an answer.
func (w *web) message(r *http.Request) ([]byte, *webResponse) {
	fail := func(status int, format string, args ...any) ([]byte, *webResponse) {
		fault := refused(status, format, args...)
		return nil, &fault
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		values, err := parameters(r)
		if err != nil {
			return fail(http.StatusBadRequest, "%v", err)
		}
		text := values["dns"]
		if len(text) != 1 {
			return fail(http.StatusBadRequest, "the parameter dns is to be there once")
		}
		message, err := base64.RawURLEncoding.Strict().DecodeString(text[0])
		if err != nil {
			return fail(http.StatusBadRequest, "the parameter dns is no base64url without padding (RFC 4648 §5)")
		}
		return message, nil
	case http.MethodPost:
		if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(kind), typeMessage) {
			return fail(http.StatusUnsupportedMediaType, "the content type is to be %s", typeMessage)
		}
		if r.Header.Get("Content-Encoding") != "" {
			return fail(http.StatusUnsupportedMediaType, "the content is to be without encoding")
		}
		message, err := w.body(r)
		switch {
		case errors.Is(err, errBusy):
			return fail(http.StatusServiceUnavailable, "%v", err)
		case errors.Is(err, errLong):
			return fail(http.StatusRequestEntityTooLarge, "%v", err)
		case err != nil:
			return fail(http.StatusBadRequest, "the content ends too early")
		}
		return message, nil
	default:
		fault := refused(http.StatusMethodNotAllowed, "the method is to be GET or POST")
		fault.allow = "GET, HEAD, POST"
		return nil, &fault
	}
}

var errLong = fmt.Errorf("a message of more than %d octets", zone.MaxMessage)

// body reads a message. What a client announces takes no memory before it comes, beyond what
// few do at once.
func (w *web) body(r *http.Request) ([]byte, error) {
	if r.ContentLength > zone.MaxMessage {
		return nil, errLong
	}
	buf := bytes.NewBuffer(make([]byte, 0, 512))
	if _, err := io.CopyN(buf, r.Body, streamBuffer); errors.Is(err, io.EOF) {
		return buf.Bytes(), nil
	} else if err != nil {
		return nil, err
	}
	all := w.listener.streams
	defer all.long.Add(-1)
	if all.long.Add(1) > maxLong {
		return nil, errBusy
	}
	if _, err := io.Copy(buf, io.LimitReader(r.Body, zone.MaxMessage+1-streamBuffer)); err != nil {
		return nil, err
	}
	if buf.Len() > zone.MaxMessage {
		return nil, errLong
	}
	return buf.Bytes(), nil
}
