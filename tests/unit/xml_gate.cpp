// What is refused before it reaches the XML parser.
#include <caisson/xml.hpp>

#include <cstdlib>
#include <string>

#include <sys/stat.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/documents.hpp"

using namespace caisson;
using namespace std::string_literals;

namespace {

std::string message(std::string_view text) {
    try {
        (void)xml::parse(text, "x.xml");
    } catch (const xml::XmlError& e) {
        CHECK(e.line() >= 1);
        return e.what();
    }
    return "taken";
}

std::string repeated(std::string_view piece, std::size_t times) {
    std::string all;
    for (std::size_t i = 0; i < times; ++i) all += piece;
    return all;
}

/// The walk-through's document with `piece` as its description.
std::string described(const std::string& piece) {
    return caisson_test::domain_with("", "<description>" + piece + "</description>");
}

}  // namespace

TEST_CASE("bytes that are no XML are refused with their line") {
    const struct {
        std::string text;
        std::string expected;
    } rows[] = {
        {std::string{caisson_test::walk_through} + "\0<evil/>"s, "x.xml:20: a NUL byte"},
        {"<a>\n\0</a>"s, "x.xml:2: a NUL byte"},
        {"<a>\n\x80</a>", "x.xml:2: byte 0x80 is not UTF-8"},
        {"<a>\n\n\xc0\xaf</a>", "x.xml:3: byte 0xC0 is not UTF-8"},
        {"<a>\xe0\x80\xaf</a>", "x.xml:1: byte 0xE0 is not UTF-8"},
        {"<a>\xf0\x80\x80\xaf</a>", "x.xml:1: byte 0xF0 is not UTF-8"},
        {"<a>\xf5\x80\x80\x80</a>", "x.xml:1: byte 0xF5 is not UTF-8"},
        {"<a>\xf4\x90\x80\x80</a>", "x.xml:1: the character U+110000 is not allowed in XML"},
        {"<a>\xed\xa0\x80</a>", "x.xml:1: the character U+D800 is not allowed in XML"},
        {"<a>\xef\xbf\xbe</a>", "x.xml:1: the character U+FFFE is not allowed in XML"},
        {"<a>\x01</a>", "x.xml:1: the character U+0001 is not allowed in XML"},
        {"<a>\n\x1b[2J</a>", "x.xml:2: the character U+001B is not allowed in XML"},
        {"<a>\xc3", "x.xml:1: byte 0xC3 is not UTF-8"},
        {"<a>\xe2\x82", "x.xml:1: byte 0xE2 is not UTF-8"},
    };
    for (const auto& row : rows) CHECK(message(row.text) == row.expected);
}

TEST_CASE("entities that are no character are refused") {
    const struct {
        const char* piece;
        const char* expected;
    } rows[] = {
        {"&#0;", "'&#0;' is not a character of XML"},
        {"&#x0;", "'&#x0;' is not a character of XML"},
        {"&#xD800;", "'&#xD800;' is not a character of XML"},
        {"&#xdfff;", "'&#xdfff;' is not a character of XML"},
        {"&#x110000;", "'&#x110000;' is not a character of XML"},
        {"&#1114112;", "'&#1114112;' is not a character of XML"},
        {"&#4294967361;", "'&#4294967361;' is not a character of XML"},
        {"&#xFFFF;", "'&#xFFFF;' is not a character of XML"},
        {"&#8;", "'&#8;' is not a character of XML"},
        {"&#;", "'&#;' is not a character of XML"},
        {"&#x;", "'&#x;' is not a character of XML"},
        {"&#X41;", "'&#X41;' is not a character of XML"},
        {"&#-1;", "'&#-1;' is not a character of XML"},
        {"&#4a;", "'&#4a;' is not a character of XML"},
        {"&nbsp;", "unknown entity '&nbsp;'"},
        {"&LT;", "unknown entity '&LT;'"},
        {"&;", "unknown entity '&;'"},
        {"&lt", "'&' begins no entity: it is written as &amp;"},
        {"a & b", "'&' begins no entity: it is written as &amp;"},
    };
    for (const auto& row : rows) {
        CAPTURE(row.piece);
        CHECK(message(described(row.piece)) == "x.xml:5: "s + row.expected);
    }
    CHECK(xml::parse(described("&lt;&gt;&amp;&apos;&quot;&#9;&#x10FFFF;&#65;")).description ==
          "<>&'\"\t\xf4\x8f\xbf\xbf"
          "A");
}

TEST_CASE("what is not well-formed is refused with its line") {
    const struct {
        std::string text;
        std::string expected;
    } rows[] = {
        {"", "x.xml:1: no element"},
        {"\n\n", "x.xml:3: no element"},
        {"<!-- x -->", "x.xml:1: no element"},
        {"text", "x.xml:1: text outside of the root element"},
        {"<a/>\nb", "x.xml:2: text outside of the root element"},
        {"<a/>\n<![CDATA[b]]>", "x.xml:2: text outside of the root element"},
        {"<a/>\n<b/>", "x.xml:2: a second root element <b>"},
        {"<a>", "x.xml:1: <a> of line 1 is not closed"},
        {"<a>\n<b>\n</a>", "x.xml:3: </a> does not close <b> of line 2"},
        {"<a/>\n</a>", "x.xml:2: </a> closes nothing"},
        {"<a></a", "x.xml:1: </a> does not end"},
        {"<a\n", "x.xml:1: <a> does not end"},
        {"<", "x.xml:1: an element's name is missing or not in ASCII"},
        {"<1/>", "x.xml:1: an element's name is missing or not in ASCII"},
        {"<\xc3\xa9/>", "x.xml:1: an element's name is missing or not in ASCII"},
        {"<a\xc3\xa9/>", "x.xml:1: an element's name is not in ASCII"},
        {"<a\nb\xc3\xa9=''/>", "x.xml:2: an attribute's name is not in ASCII"},
        {"<a b/>", "x.xml:1: the attribute 'b' has no value"},
        {"<a b=c/>", "x.xml:1: the value of 'b' is not in quotes"},
        {"<a\nb='c/>", "x.xml:2: the value of 'b' does not end"},
        {"<a b='<'/>", "x.xml:1: '<' in the value of 'b'"},
        {"<a b=''c=''/>", "x.xml:1: a space is missing in <a>"},
        {"<a b=''\n\nb=''/>", "x.xml:3: a second attribute 'b' of <a>"},
        {"<a b='&x;'/>", "x.xml:1: unknown entity '&x;'"},
        {"<a>]]></a>", "x.xml:1: ']]>' in text"},
        {"<a><![CDATA[</a>", "x.xml:1: the CDATA section does not end"},
        {"<a>\n<!-- </a>", "x.xml:2: the comment does not end"},
        {"<a><!-- b -- c --></a>", "x.xml:1: '--' within a comment"},
        {"<a><!ELEMENT b></a>", "x.xml:1: '<!' begins neither a comment nor a CDATA section"},
    };
    for (const auto& row : rows) CHECK(message(row.text) == row.expected);
}

TEST_CASE("a document type is refused, and with it every entity bomb") {
    CHECK(message("<?xml version='1.0'?>\n<!DOCTYPE d [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]>\n<domain>&b;</domain>") ==
          "x.xml:2: a DOCTYPE is not accepted");
    CHECK(message("<!DOCTYPE d SYSTEM 'file:///etc/passwd'><d/>") == "x.xml:1: a DOCTYPE is not accepted");
}

TEST_CASE("of processing instructions only the XML declaration is taken, and of encodings UTF-8") {
    const std::string document{caisson_test::walk_through};
    for (const char* good : {"<?xml version='1.0'?>\n", "<?xml version=\"1.0\" encoding=\"utf-8\" standalone='yes' ?>",
                             "\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?>", "\xef\xbb\xbf"}) {
        CAPTURE(good);
        CHECK(message(good + document) == "taken");
    }
    CHECK(message("<?xml version='1.0'\n encoding='ISO-8859-1'?>" + document) ==
          "x.xml:2: the encoding is 'ISO-8859-1': it must be UTF-8");
    CHECK(message("<?xml version='1.1'?>" + document) == "x.xml:1: the XML version is '1.1': it must be 1.0");
    CHECK(message("<?xml x='y'?>" + document) == "x.xml:1: unknown attribute 'x' in the XML declaration");
    CHECK(message("<?xml version='1.0'") == "x.xml:1: the XML declaration does not end");
    CHECK(message("\n<?xml version='1.0'?>" + document) == "x.xml:2: the XML declaration is not at the very beginning");
    CHECK(message("<?php evil() ?>" + document) == "x.xml:1: a processing instruction is not accepted");
    CHECK(message(document + "<?pi?>") == "x.xml:20: a processing instruction is not accepted");
}

TEST_CASE("an XML declaration has a version, then perhaps an encoding, then perhaps standalone") {
    constexpr const char* order =
        " in the XML declaration: it must hold 'version', 'encoding' and 'standalone' in this order, and may leave out "
        "the last two";
    const auto refused = [](const std::string& declaration) {
        return message(declaration + std::string{caisson_test::walk_through});
    };
    CHECK(refused("<?xml encoding='UTF-8'?>") == "x.xml:1: 'encoding'"s + order);
    CHECK(refused("<?xml version='1.0'\nversion='1.0'?>") == "x.xml:2: 'version'"s + order);
    CHECK(refused("<?xml version='1.0' standalone='no' encoding='UTF-8'?>") == "x.xml:1: 'encoding'"s + order);
    CHECK(refused("<?xml ?>") == "x.xml:1: the XML declaration has no version");
    CHECK(refused("<?xml version='1.0'encoding='UTF-8'?>") == "x.xml:1: a space is missing in the XML declaration");
    CHECK(refused("<?xml version='1.0' standalone='maybe'?>") ==
          "x.xml:1: 'standalone' of the XML declaration is 'maybe': it must be 'yes' or 'no'");
}

TEST_CASE("a document of more than 1 MiB is refused") {
    std::string text{caisson_test::walk_through};
    text.resize(1 << 20, ' ');
    CHECK(message(text) == "taken");
    CHECK(message(text + " ") == "x.xml:1: larger than 1 MiB");
}

TEST_CASE("a megabyte of attributes is refused without comparing each with each") {
    std::string text = "<domain";
    for (int i = 0; text.size() < 1'000'000; ++i) text += " a" + std::to_string(i) + "=''";
    CHECK(message(text + "/>") == "x.xml:1: <domain> has more than 64 attributes");
}

TEST_CASE("long tags, deep trees and many elements are refused") {
    CHECK(message("<a b='" + std::string(4100, 'x') + "'/>") == "x.xml:1: <a> has more than 4096 bytes");
    CHECK(message("<a" + std::string(4100, ' ') + "/>") == "x.xml:1: <a> has more than 4096 bytes");
    CHECK(message(repeated("<a>\n", 33)) == "x.xml:33: elements are nested more than 32 deep");
    CHECK(message(repeated("<a>", 32) + repeated("</a>", 32)) ==
          "x.xml:1: the root element is <a>: it must be <domain>");
    CHECK(message("<a>" + repeated("<b/>\n", 9999) + "</a>") ==
          "x.xml:1: the root element is <a>: it must be <domain>");
    CHECK(message("<a>" + repeated("<b/>\n", 10000) + "</a>") == "x.xml:10000: more than 10000 elements");
}

TEST_CASE("a file that is not regular, not there or too large is refused, and none is waited for") {
    char directory[] = "/tmp/caisson-xml-XXXXXX";
    REQUIRE(::mkdtemp(directory) != nullptr);
    const std::string fifo = directory + "/fifo"s;
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    const std::string large = directory + "/large"s;
    ::close(::creat(large.c_str(), 0600));
    REQUIRE(::truncate(large.c_str(), off_t{1} << 40) == 0);
    const auto failure = [](const std::string& path) {
        try {
            (void)xml::load(path);
        } catch (const Error& e) {
            CHECK(e.step() == Step::read_xml);
            return std::string{e.what()};
        }
        return "taken"s;
    };
    CHECK(failure(fifo) == "read '" + fifo + "': not a regular file");
    CHECK(failure(directory) == "read '"s + directory + "': not a regular file");
    CHECK(failure("/dev/zero") == "read '/dev/zero': not a regular file");
    CHECK(failure(directory + "/none"s) == "read '"s + directory + "/none': No such file or directory");
    CHECK(failure(large) == large + ":1: larger than 1 MiB");
    ::unlink(fifo.c_str());
    ::unlink(large.c_str());
    ::rmdir(directory);
}

TEST_CASE("a source's name cannot write to a terminal") {
    try {
        (void)xml::parse("", "a\x1b[2J.xml");
        FAIL("taken");
    } catch (const xml::XmlError& e) {
        CHECK(std::string{e.what()} == "a\\x1b[2J.xml:1: no element");
    }
}
