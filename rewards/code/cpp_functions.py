"""Calls of functions in C++: a main program around the candidate that reads arguments and prints the result, as JSON.

The types of the arguments and of the result are the function's own: numbers, bool, char, string, vector, pair, tuple,
array, set, map, nested as one likes. Methods of a class Solution, as LeetCode has them, are called on a fresh object.
The head includes the whole library and `using namespace std`, as such sites do. What is expected is never in there.
"""

from __future__ import annotations

import json
import re

HEAD = r"""#include <bits/stdc++.h>
namespace r1lab {
struct Reader {
    int next = std::getchar();
    void advance() { next = std::getchar(); }
    void skip() { while (next == ' ' || next == '\n' || next == ',' || next == ':') advance(); }
    void expect(int c) { skip(); if (next != c) fail(); advance(); }
    bool ends(int c) { skip(); if (next != c) return false; advance(); return true; }
    [[noreturn]] void fail() { std::fputs("an argument does not fit the function's type\n", stderr); std::exit(97); }
    std::string word() {
        std::string text;
        skip();
        while (next != EOF && !std::strchr(" \n,:[]{}\"", next)) { text += char(next); advance(); }
        if (text.empty()) fail();
        return text;
    }
    unsigned hex4() {
        unsigned code = 0;
        for (int i = 0; i < 4; i++) {
            advance();
            const char* digits = "0123456789abcdef";
            const char* found = next == EOF ? nullptr : std::strchr(digits, next);
            if (!found) fail();
            code = code * 16 + unsigned(found - digits);
        }
        return code;
    }
    std::string text() {
        std::string result;
        expect('"');
        for (; next != '"'; advance()) {
            if (next == EOF) fail();
            if (next != '\\') { result += char(next); continue; }
            advance();
            switch (next) {
                case 'n': result += '\n'; break;
                case 't': result += '\t'; break;
                case 'r': result += '\r'; break;
                case 'b': result += '\b'; break;
                case 'f': result += '\f'; break;
                case 'u': result += char(hex4()); break;  // control characters only: the rest comes as UTF-8
                default: result += char(next);
            }
        }
        advance();
        return result;
    }
};
template<class T, class = void> struct Value {
    static T read(Reader& r) {
        std::istringstream words(r.word());
        T value;
        if (!(words >> value)) r.fail();
        return value;
    }
    static void write(std::ostream& out, const T& value) {
        if constexpr (std::is_floating_point_v<T>) {
            if (!std::isfinite(value)) { out << "NaN"; return; }
            out << std::setprecision(std::numeric_limits<T>::max_digits10);
        }
        out << value;
        if constexpr (std::is_floating_point_v<T>) {
            if (value == std::floor(value) && std::fabs(value) < 1e6) out << ".0";
        }
    }
};
template<> struct Value<bool> {
    static bool read(Reader& r) { return r.word() == "true"; }
    static void write(std::ostream& out, bool value) { out << (value ? "true" : "false"); }
};
template<> struct Value<std::string> {
    static std::string read(Reader& r) { return r.text(); }
    static void write(std::ostream& out, const std::string& value) {
        out << '"';
        for (unsigned char c : value) {
            if (c == '"' || c == '\\') out << '\\' << c;
            else if (c < 32) { char code[8]; std::snprintf(code, 8, "\\u%04x", c); out << code; }
            else out << c;
        }
        out << '"';
    }
};
template<> struct Value<char> {
    static char read(Reader& r) { std::string text = r.text(); if (text.size() != 1) r.fail(); return text[0]; }
    static void write(std::ostream& out, char value) { Value<std::string>::write(out, std::string(1, value)); }
};
template<class C> void write_items(std::ostream& out, const C& items) {
    out << '[';
    bool first = true;
    for (const auto& item : items) {
        out << (first ? "" : ",");
        first = false;
        Value<typename C::value_type>::write(out, item);
    }
    out << ']';
}
template<class T, class A> struct Value<std::vector<T, A>> {
    static std::vector<T, A> read(Reader& r) {
        std::vector<T, A> items;
        r.expect('[');
        while (!r.ends(']')) items.push_back(Value<T>::read(r));
        return items;
    }
    static void write(std::ostream& out, const std::vector<T, A>& items) { write_items(out, items); }
};
template<class S> struct Set {
    static S read(Reader& r) {
        S items;
        r.expect('[');
        while (!r.ends(']')) items.insert(Value<typename S::value_type>::read(r));
        return items;
    }
    static void write(std::ostream& out, const S& items) { write_items(out, items); }
};
template<class T> struct Value<std::set<T>> : Set<std::set<T>> {};
template<class T> struct Value<std::multiset<T>> : Set<std::multiset<T>> {};
template<class T> struct Value<std::unordered_set<T>> : Set<std::unordered_set<T>> {};
template<class M> struct Map {
    using K = typename M::key_type;
    static M read(Reader& r) {
        M items;
        r.expect('{');
        while (!r.ends('}')) {
            K key;
            if constexpr (std::is_same_v<K, std::string>) key = r.text();
            else { std::istringstream text(r.text()); if (!(text >> key)) r.fail(); }
            items.emplace(std::move(key), Value<typename M::mapped_type>::read(r));
        }
        return items;
    }
    static void write(std::ostream& out, const M& items) {
        out << '{';
        bool first = true;
        for (const auto& [key, value] : items) {
            out << (first ? "" : ",");
            first = false;
            if constexpr (std::is_arithmetic_v<K> && !std::is_same_v<K, char>) {
                out << '"'; Value<K>::write(out, key); out << '"';
            } else Value<K>::write(out, key);
            out << ':';
            Value<typename M::mapped_type>::write(out, value);
        }
        out << '}';
    }
};
template<class K, class V> struct Value<std::map<K, V>> : Map<std::map<K, V>> {};
template<class K, class V> struct Value<std::unordered_map<K, V>> : Map<std::unordered_map<K, V>> {};
template<class T> struct Tuple {
    static T read(Reader& r) {
        r.expect('[');
        T items;
        std::apply([&](auto&... item) { ((item = Value<std::decay_t<decltype(item)>>::read(r)), ...); }, items);
        r.expect(']');
        return items;
    }
    static void write(std::ostream& out, const T& items) {
        const char* between = "[";
        std::apply([&](const auto&... item) {
            ((out << between, between = ",", Value<std::decay_t<decltype(item)>>::write(out, item)), ...);
        }, items);
        out << ']';
    }
};
template<class A, class B> struct Value<std::pair<A, B>> : Tuple<std::pair<A, B>> {};
template<class... T> struct Value<std::tuple<T...>> : Tuple<std::tuple<T...>> {};
template<class T, std::size_t N> struct Value<std::array<T, N>> : Tuple<std::array<T, N>> {};

template<class R, class... A, class F> void run(F function) {
    Reader reader;
    reader.expect('[');
    std::tuple<std::decay_t<A>...> arguments{Value<std::decay_t<A>>::read(reader)...};
    reader.expect(']');
    std::ostringstream out;
    auto with_them = [&](auto&... a) -> R { return function(static_cast<A&&>(a)...); };
    if constexpr (std::is_void_v<R>) { std::apply(with_them, arguments); out << "null"; }
    else Value<std::decay_t<R>>::write(out, std::apply(with_them, arguments));
    std::cout.flush();
    std::printf("\n%s\n", out.str().c_str());
}
template<class R, class... A> void call(R (*f)(A...)) { run<R, A...>(f); }
template<class C, class R, class... A> void call(R (C::*f)(A...)) {
    C object{};
    run<R, A...>([&](auto&&... a) -> R { return (object.*f)(std::forward<decltype(a)>(a)...); });
}
template<class C, class R, class... A> void call(R (C::*f)(A...) const) {
    C object{};
    run<R, A...>([&](auto&&... a) -> R { return (object.*f)(std::forward<decltype(a)>(a)...); });
}
}  // namespace r1lab
using namespace std;
#define main r1lab_candidate_main
#line 1 "program.cpp"
"""
FOOT = """
#undef main
signed main() {{ r1lab::call(&{name}); }}
"""
_SOLUTION = re.compile(r"\b(?:class|struct)\s+Solution\b")


def with_main(program: str, name: str) -> str:
    """The program with a main function that calls `name`."""
    method = name.rpartition(".")[2]
    return HEAD + program + FOOT.format(name=f"Solution::{method}" if _SOLUTION.search(program) else method)


def arguments_text(args: tuple) -> str:
    """What that main function reads."""
    return json.dumps(list(args), ensure_ascii=False)


def result_of(printed: str) -> object:
    """What it prints: the last line. Raises ValueError for what is none."""
    try:
        return json.loads(printed.rstrip("\n").rpartition("\n")[2])
    except RecursionError as error:
        raise ValueError("a result that is nested too deeply") from error
