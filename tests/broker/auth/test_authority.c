/* tests/broker/auth/test_authority.c: the queue of logins, and who is forgiven. The clock stands,
 * so a wait that has begun does not end. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "broker/auth/auth.h"
#include "broker/auth/backoff.h"
#include "broker/auth/password.h"

#define TOKEN "a-token-of-an-admin"

static int64_t stands(void *ctx)
{
    return *(const int64_t *)ctx;
}

static struct authority *start(const struct chr_clock *clock)
{
    char path[] = "/tmp/chronos-authority-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    static const char *const users[] = {"alice", "mallory"};
    for (size_t i = 0; i < 2; i++) {
        struct chr_buf hash;
        chr_buf_init(&hash, 1000);
        assert_int_equal(password_make(PASSWORD_PBKDF2_SHA512, chr_slice_cstr(users[i]), 1, &hash),
                         0);
        fprintf(file, "%s:%.*s\n", users[i], (int)hash.len, (const char *)hash.ptr);
        chr_buf_free(&hash);
    }
    fclose(file);
    struct broker_config config = {.password_file = path, .auth_token_admin = TOKEN};
    struct auth *auth = NULL;
    struct authority *a = NULL;
    struct chr_errmsg msg = {{0}};
    if (auth_load(&config, &auth, &msg))
        fail_msg("%s", msg.text);
    unlink(path);
    assert_int_equal(authority_new(auth, clock, 60, &a), 0);
    return a;
}

/* ---- Logins that a test waits for ---------------------------------------------------------------
 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned held, outcomes[AUTH_STOPPING + 1];
static bool holding;

struct login {
    struct auth_request request;
    char user[32], address[64];
    bool hold; /* its worker stays in done() while `holding` */
};

static void done(struct auth_request *request)
{
    struct login *l = CHR_CONTAINER_OF(request, struct login, request);
    principal_unref(request->principal); /* first: who waits may take the login away */
    pthread_mutex_lock(&lock);
    outcomes[request->outcome]++;
    held += l->hold;
    pthread_cond_broadcast(&changed);
    while (l->hold && holding)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static unsigned outcomes_all(void)
{
    unsigned all = 0;
    for (size_t i = 0; i <= AUTH_STOPPING; i++)
        all += outcomes[i];
    return all;
}

static void wait_for(unsigned count)
{
    pthread_mutex_lock(&lock);
    while (outcomes_all() < count)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static enum auth_outcome ask(struct authority *a, struct login *l, const char *user,
                             const char *password, const char *address)
{
    snprintf(l->user, sizeof l->user, "%s", user);
    snprintf(l->address, sizeof l->address, "%s", address);
    l->request = (struct auth_request){.has_user = true,
                                       .has_password = true,
                                       .user = chr_slice_cstr(l->user),
                                       .password = chr_slice_cstr(password),
                                       .address = l->address,
                                       .surface = "test",
                                       .done = done};
    return auth_check(a, &l->request);
}

/* One login from beginning to end. */
static enum auth_outcome login(struct authority *a, const char *user, const char *password,
                               const char *address)
{
    struct login l = {.hold = false};
    unsigned before = outcomes_all();
    enum auth_outcome outcome = ask(a, &l, user, password, address);
    if (outcome == AUTH_OK)
        principal_unref(l.request.principal);
    if (outcome != AUTH_PENDING)
        return outcome;
    wait_for(before + 1);
    return l.request.outcome;
}

static void stop(struct authority *a)
{
    authority_stop(a);
    authority_free(a);
}

/* ---- Tests --------------------------------------------------------------------------------------
 */

static void a_login_forgives_only_the_name_it_proved(void **state)
{
    int64_t now_us = 1000000;
    const struct chr_clock clock = {stands, stands, &now_us};
    struct authority *a = start(&clock);
    const char *attacker = "10.0.0.1:1", *other = "10.0.0.2:1", *third = "10.0.0.3:1";
    memset(outcomes, 0, sizeof outcomes);
    /* With a token, and any name beside it. */
    for (unsigned i = 0; i < BACKOFF_FREE; i++) {
        assert_int_equal(login(a, "alice", "wrong", attacker), AUTH_REFUSED);
        assert_int_equal(login(a, "alice", TOKEN, attacker), AUTH_OK);
    }
    assert_int_equal(login(a, "alice", "wrong", attacker), AUTH_REFUSED);
    assert_int_equal(login(a, "alice", "wrong", attacker), AUTH_BACKOFF);
    assert_int_equal(login(a, "alice", "alice", other), AUTH_BACKOFF);
    now_us += 250000;
    /* With one's own password, between guesses at somebody else's. */
    for (unsigned i = 0; i < BACKOFF_FREE; i++) {
        char guess[32];
        snprintf(guess, sizeof guess, "guess%u", i);
        assert_int_equal(login(a, guess, "wrong", third), AUTH_REFUSED);
        assert_int_equal(login(a, "mallory", "mallory", third), AUTH_OK);
    }
    assert_int_equal(login(a, "guess", "wrong", third), AUTH_REFUSED);
    assert_int_equal(login(a, "mallory", "mallory", third), AUTH_BACKOFF);
    /* Who mistypes one's own. */
    for (unsigned i = 0; i < 3 * BACKOFF_FREE; i++) {
        if (i % BACKOFF_FREE == 0)
            assert_int_equal(login(a, "mallory", "mallory", other), AUTH_OK);
        assert_int_equal(login(a, "mallory", "wrong", other), AUTH_REFUSED);
    }
    stop(a);
}

/* Two may share a count; the test's names do not. */
static bool same_count(uint64_t a, uint64_t b)
{
    return (a >> 1) % AUTH_QUEUE_MAX == (b >> 1) % AUTH_QUEUE_MAX;
}

static void the_queue_is_shared(void **state)
{
    int64_t now_us = 1000000;
    const struct chr_clock clock = {stands, stands, &now_us};
    struct authority *a = start(&clock);
    struct login *l = calloc(AUTH_QUEUE_SHARE * 2 + AUTH_THREADS + 8, sizeof *l);
    assert_non_null(l);
    memset(outcomes, 0, sizeof outcomes);
    held = 0;
    holding = true;
    for (unsigned i = 0; i < AUTH_THREADS; i++) {
        l->hold = true;
        assert_int_equal(ask(a, l++, "alice", "alice", "10.1.1.1:1"), AUTH_PENDING);
    }
    pthread_mutex_lock(&lock);
    while (held < AUTH_THREADS)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);

    static const char network[] = "[2001:db8:1:2::1]:1", stranger[] = "10.3.0.1:1";
    uint64_t mallory = backoff_user(CHR_LIT("mallory"));
    char text[64];
    struct login *flood = l;
    for (unsigned i = 0, n = 0; n < AUTH_QUEUE_SHARE; i++) {
        snprintf(text, sizeof text, "u%u", i);
        if (same_count(backoff_user(chr_slice_cstr(text)), mallory))
            continue;
        assert_int_equal(ask(a, l++, text, "wrong", network), AUTH_PENDING);
        n++;
    }
    /* The same network, by another address of it. */
    assert_int_equal(ask(a, l++, "v", "wrong", "[2001:db8:1:2:3:4:5:6]:2"), AUTH_BUSY);
    for (unsigned i = 0, n = 0; n < AUTH_QUEUE_SHARE; i++) {
        snprintf(text, sizeof text, "10.2.%u.%u:1", i / 250, i % 250);
        if (same_count(backoff_address(text), backoff_address(network)))
            continue;
        assert_int_equal(ask(a, l++, "mallory", "mallory", text), AUTH_PENDING);
        n++;
    }
    assert_int_equal(ask(a, l++, "mallory", "mallory", stranger), AUTH_BUSY);
    unsigned free_one = 0; /* somebody else is not kept out */
    if (!same_count(backoff_user(CHR_LIT("alice")), mallory) &&
        !same_count(backoff_address(stranger), backoff_address(network))) {
        assert_int_equal(ask(a, l++, "alice", "alice", stranger), AUTH_PENDING);
        free_one = 1;
    }
    /* Half of the flood has gone away. */
    for (unsigned i = 0; i < AUTH_QUEUE_SHARE; i += 2)
        atomic_store(&flood[i].request.abandoned, true);

    pthread_mutex_lock(&lock);
    holding = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    wait_for(AUTH_THREADS + 2 * AUTH_QUEUE_SHARE + free_one);
    struct auth_stats stats;
    authority_stats(a, &stats);
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(outcomes[AUTH_OK], AUTH_THREADS + AUTH_QUEUE_SHARE + free_one);
    /* Of the others the first few were verified; each worker may have been at one when it was seen
     * that this address has to wait. */
    assert_in_range(stats.failures, BACKOFF_FREE + 1, BACKOFF_FREE + AUTH_THREADS);
    assert_int_equal(outcomes[AUTH_BACKOFF], AUTH_QUEUE_SHARE / 2 - stats.failures);
    assert_int_equal(outcomes[AUTH_REFUSED], AUTH_QUEUE_SHARE / 2 + stats.failures);
    /* Nothing of the counts is left. */
    assert_int_equal(login(a, "mallory", "mallory", "10.3.0.1:1"), AUTH_OK);
    stop(a);
    free(flood - AUTH_THREADS);
}

static void names_that_certificates_may_not_have(void **state)
{
    assert_null(auth_trusted_name_fault(CHR_LIT("esp-001")));
    assert_null(auth_trusted_name_fault(CHR_LIT("00:1b:63:84:45:e6")));
    assert_non_null(auth_trusted_name_fault(CHR_LIT("")));
    assert_non_null(auth_trusted_name_fault(CHR_LIT("token:admin")));
    assert_non_null(auth_trusted_name_fault(CHR_LIT("chronos:prompt")));
    assert_non_null(auth_trusted_name_fault(CHR_LIT("a\tb")));
    assert_non_null(auth_trusted_name_fault(CHR_LIT("\xff")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_login_forgives_only_the_name_it_proved),
        cmocka_unit_test(the_queue_is_shared),
        cmocka_unit_test(names_that_certificates_may_not_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
