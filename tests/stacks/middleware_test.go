package stacks

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/CAFxX/httpcompression"
	"github.com/NYTimes/gziphandler"
	sentryhttp "github.com/getsentry/sentry-go/http"
	gingzip "github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"
	chimw "github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/klauspost/compress/gzhttp"
	echo4 "github.com/labstack/echo/v4"
	echo4mw "github.com/labstack/echo/v4/middleware"
	echo5 "github.com/labstack/echo/v5"
	echo5mw "github.com/labstack/echo/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/cors"
	"github.com/unrolled/secure"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// A wrapper is one piece of middleware around a handler.
type wrapper struct {
	name string
	wrap func(http.Handler) http.Handler
}

var wrappers = []wrapper{
	{"none", func(h http.Handler) http.Handler { return h }},

	{"chi Logger", func(h http.Handler) http.Handler {
		return chimw.RequestLogger(&chimw.DefaultLogFormatter{Logger: slogPrinter{}, NoColor: true})(h)
	}},
	{"chi Recoverer", chimw.Recoverer},
	{"chi Compress", chimw.Compress(5)},
	{"chi Compress all", chimw.Compress(5, "text/*", "application/*")},
	{"chi Timeout 60 s", chimw.Timeout(time.Minute)},
	{"chi Throttle", chimw.Throttle(100)},
	{"chi NoCache, Heartbeat", func(h http.Handler) http.Handler { return chimw.NoCache(chimw.Heartbeat("/ping")(h)) }},

	{"gorilla CompressHandler", handlers.CompressHandler},
	{"gorilla CombinedLoggingHandler", func(h http.Handler) http.Handler {
		return handlers.CombinedLoggingHandler(io.Discard, h)
	}},
	{"gorilla RecoveryHandler", handlers.RecoveryHandler()},
	{"gorilla ProxyHeaders", handlers.ProxyHeaders},
	{"gorilla CORS", handlers.CORS()},

	{"gziphandler", gziphandler.GzipHandler},
	{"gzhttp", func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) }},
	{"httpcompression", must(httpcompression.DefaultAdapter())},

	{"gin Logger, Recovery", viaGin(gin.LoggerWithWriter(io.Discard), gin.RecoveryWithWriter(io.Discard))},
	{"gin gzip", viaGin(gingzip.Gzip(gingzip.DefaultCompression))},

	{"echo v4 Logger, Recover, RequestID", viaEcho4(echo4mw.RequestID(), echo4mw.Recover(),
		echo4mw.RequestLoggerWithConfig(echo4mw.RequestLoggerConfig{LogStatus: true,
			LogValuesFunc: func(echo4.Context, echo4mw.RequestLoggerValues) error { return nil }}))},
	{"echo v4 Gzip", viaEcho4(echo4mw.Gzip())},
	{"echo v4 Secure, CORS", viaEcho4(echo4mw.Secure(), echo4mw.CORS())},
	{"echo v4 BodyDump", viaEcho4(echo4mw.BodyDump(func(echo4.Context, []byte, []byte) {}))},
	//lint:ignore SA1019 programs have it
	{"echo v4 Timeout 60 s", viaEcho4(echo4mw.TimeoutWithConfig(echo4mw.TimeoutConfig{Timeout: time.Minute}))},
	{"echo v4 ContextTimeout 60 s", viaEcho4(echo4mw.ContextTimeout(time.Minute))},
	{"echo v5 Gzip", viaEcho5(echo5mw.Gzip())},
	{"echo v5 Recover, RequestID", viaEcho5(echo5mw.Recover(), echo5mw.RequestID())},

	{"http.TimeoutHandler 60 s", func(h http.Handler) http.Handler {
		return http.TimeoutHandler(h, time.Minute, "too late")
	}},
	{"http.MaxBytesHandler", func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1<<20) }},
	{"otelhttp", func(h http.Handler) http.Handler { return otelhttp.NewHandler(h, "gpoll") }},
	{"promhttp Duration, Counter, InFlight", viaPrometheus},
	{"sentryhttp", func(h http.Handler) http.Handler {
		return sentryhttp.New(sentryhttp.Options{Repanic: true}).Handle(h)
	}},
	{"rs/cors", cors.Default().Handler},
	{"unrolled/secure", secure.New(secure.Options{FrameDeny: true}).Handler},
	{"http.CrossOriginProtection", http.NewCrossOriginProtection().Handler},

	{"a recorder with Unwrap", recording(func(w recorder) http.ResponseWriter { return &unwrapping{w} })},
	{"a recorder with Flush and Hijack", recording(func(w recorder) http.ResponseWriter { return &flushing{w} })},
	{"a recorder with Flush alone", recording(func(w recorder) http.ResponseWriter { return &onlyFlushing{w} })},
	{"a bare recorder", recording(func(w recorder) http.ResponseWriter { return &w })},
}

func recording(wrap func(recorder) http.ResponseWriter) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrap(recorder{w, 0}), r) })
	}
}

func must(adapter func(http.Handler) http.Handler, err error) func(http.Handler) http.Handler {
	if err != nil {
		panic(err)
	}
	return adapter
}

func viaGin(use ...gin.HandlerFunc) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		r := gin.New()
		r.Use(use...)
		r.Any("/*any", gin.WrapH(h))
		return r
	}
}

func viaEcho4(use ...echo4.MiddlewareFunc) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		e := echo4.New()
		e.Use(use...)
		e.Any("/*", echo4.WrapHandler(h))
		return e
	}
}

func viaEcho5(use ...echo5.MiddlewareFunc) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		e := echo5.New()
		e.Use(use...)
		e.Any("/*", echo5.WrapHandler(h))
		return e
	}
}

func viaPrometheus(h http.Handler) http.Handler {
	labels := []string{"code", "method"}
	h = promhttp.InstrumentHandlerDuration(prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "d"}, labels), h)
	h = promhttp.InstrumentHandlerCounter(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, labels), h)
	toHeader := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "t"}, labels)
	h = promhttp.InstrumentHandlerTimeToWriteHeader(toHeader, h)
	return promhttp.InstrumentHandlerInFlight(prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}), h)
}

// slogPrinter takes chi's log lines.
type slogPrinter struct{}

func (slogPrinter) Print(v ...any) { slog.Debug("request", "line", v) }

// recorder is what many programs have: a ResponseWriter that remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

type unwrapping struct{ recorder }

func (w *unwrapping) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type flushing struct{ recorder }

func (w *flushing) Flush() { w.ResponseWriter.(http.Flusher).Flush() }
func (w *flushing) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

type onlyFlushing struct{ recorder }

func (w *onlyFlushing) Flush() { w.ResponseWriter.(http.Flusher).Flush() }
