/* The floor of fan-out: one frame, written to every viewer by send(), each event by itself.
 *
 *   floor PORT VIEWERS EVENTS_PER_S SECONDS BYTES [go]
 *
 * Listens on loopback, waits for so many viewers, answers each one's handshake with the
 * constant 101 of a viewer that does not check the key, and then only sends. Prints one line:
 * events, deliveries, CPU microseconds (user and system of this process) and those for each
 * delivery. Epoll is not needed: a viewer's few bytes are read once, at its handshake.
 *
 * With `go` it is one of the peers (bench/peers): it prints its port, publishes from the moment
 * that the line `go START` on stdin names, numbers and times its events, and ends with stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char ANSWER[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: none\r\n\r\n";

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double cpu_us(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 + use.ru_utime.tv_usec +
           use.ru_stime.tv_usec;
}

static void sleep_until(struct timespec *at, long step_ns) {
    at->tv_nsec += step_ns;
    at->tv_sec += at->tv_nsec / 1000000000L;
    at->tv_nsec %= 1000000000L;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, NULL);
}

static struct timespec told_start(void) {
    double start;
    if (scanf("go %lf", &start) != 1) fail("stdin");
    struct timespec at = {.tv_sec = (time_t)start};
    at.tv_nsec = (long)((start - (double)at.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    return at;
}

/* The same bytes as the peers send, padded to their size; the frame's length stays. */
static void write_event(char *payload, size_t size, long event, struct timespec at) {
    static const char END[] = "\"}}]";
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long long at_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
    char head[192];
    int length = snprintf(head, sizeof head,
                          "[{\"ev\":\"notice.posted\",\"seq\":%ld,\"at\":%lld,"
                          "\"data\":{\"text\":\"%ld %ld.%06ld ",
                          event + 1, at_ms, event, (long)at.tv_sec, at.tv_nsec / 1000);
    if ((size_t)length + sizeof END > size) fail("too few bytes");
    memset(payload, '.', size);
    memcpy(payload, head, (size_t)length);
    memcpy(payload + size - (sizeof END - 1), END, sizeof END - 1);
}

static void send_all(int viewer, const char *frame, size_t size) {
    while (size > 0) {
        ssize_t sent = send(viewer, frame, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) fail("send");
        frame += sent;
        size -= (size_t)sent;
    }
}

int main(int argc, char **argv) {
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "usage: floor PORT VIEWERS EVENTS_PER_S SECONDS BYTES [go]\n");
        return 2;
    }
    int count = atoi(argv[2]), rate = atoi(argv[3]), seconds = atoi(argv[4]);
    size_t size = (size_t)atoi(argv[5]);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0) fail("bind");
    if (listen(listener, 1024) < 0) fail("listen");
    int told = argc == 7;
    if (told) {
        socklen_t length = sizeof here;
        if (getsockname(listener, (struct sockaddr *)&here, &length) < 0) fail("getsockname");
        printf("port %d\n", ntohs(here.sin_port));
        fflush(stdout);
    }

    int *viewers = calloc((size_t)count, sizeof *viewers);
    char request[4096];
    for (int i = 0; i < count; i++) {
        viewers[i] = accept(listener, NULL, NULL);
        if (viewers[i] < 0) fail("accept");
        if (recv(viewers[i], request, sizeof request, 0) <= 0) fail("recv");
        send_all(viewers[i], ANSWER, sizeof ANSWER - 1);
    }

    char *frame = malloc(size + 4);
    size_t head = size < 126 ? 2 : 4;
    frame[0] = (char)0x81;
    frame[1] = (char)(size < 126 ? size : 126);
    if (head == 4) {
        frame[2] = (char)(size >> 8);
        frame[3] = (char)(size & 255);
    }
    memset(frame + head, 'x', size);

    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    if (told) at = told_start();
    double before = cpu_us();
    long events = (long)rate * seconds;
    for (long event = 0; event < events; event++) {
        if (told && event > 0) sleep_until(&at, 1000000000L / rate);
        if (told) write_event(frame + head, size, event, at);
        if (!told) sleep_until(&at, 1000000000L / rate);
        for (int i = 0; i < count; i++) send_all(viewers[i], frame, head + size);
    }
    double used = cpu_us() - before;
    double deliveries = (double)events * count;
    printf("{\"events\": %ld, \"deliveries\": %.0f, \"cpu_us\": %.0f, \"us_per_delivery\": %.2f}\n",
           events, deliveries, used, used / deliveries);
    fflush(stdout);
    while (told && getchar() != EOF) {
    }
    return 0;
}
