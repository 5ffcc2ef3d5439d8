"""What the shop sells, where its visitors live and what they browse with.

The second half holds the same as JSON text, made once: the generator only puts pieces together.
"""

from __future__ import annotations

import json

# City, region, country, currency, zone.
PLACES = (
    ("Lyon", "Rhone", "FR", "EUR", "Europe/Paris"),
    ("Berlin", "Berlin", "DE", "EUR", "Europe/Berlin"),
    ("Århus", "Midtjylland", "DK", "DKK", "Europe/Copenhagen"),
    ("Київ", "Київ", "UA", "UAH", "Europe/Kyiv"),
    ("Харків", "Харківська область", "UA", "UAH", "Europe/Kyiv"),
    ("San José", "California", "US", "USD", "America/Los_Angeles"),
    ("Austin", "Texas", "US", "USD", "America/Chicago"),
    ("São Paulo", "São Paulo", "BR", "BRL", "America/Sao_Paulo"),
    ("東京", "東京都", "JP", "JPY", "Asia/Tokyo"),
    ("London", "England", "GB", "GBP", "Europe/London"),
    ("Pune", "Maharashtra", "IN", "INR", "Asia/Kolkata"),
    ("Åre", "Jämtland", "SE", "SEK", "Europe/Stockholm"),
)
# Browser, version, system, width, height, device.
SCREENS = (
    ("Chrome", "131", "Mac OS X", 1728, 1117, "Mac"),
    ("Chrome", "131", "Windows", 1920, 1080, "PC"),
    ("Chrome", "130", "Android", 412, 915, "Pixel 8"),
    ("Safari", "18.1", "Mac OS X", 1512, 982, "Mac"),
    ("Mobile Safari", '"18.1"', "iOS", 390, 844, "iPhone"),
    ("Firefox", "132", "Linux", 2560, 1440, "PC"),
)
REFERRERS = (
    '"$initial_referrer":"$direct"',
    '"$initial_referrer":"https://www.search.example/","$search_engine":"search"',
    '"$initial_referrer":"https://news.example/a?id=1&x=%20","utm_source":"newsletter",'
    '"utm_campaign":"Früh & spät"',
)
# Id, name, category, price in hundredths.
PRODUCTS = (
    ("A1", "Espresso beans 1 kg", "Coffee", 2190),
    ("A2", "Filter coffee, Æthiopia", "Coffee", 1450),
    ("A3", "Decaf (250 g)", "Coffee", 790),
    ("B1", 'Dripper 02 "white"', "Gear", 2400),
    ("B2", "Hand mill", "Gear", 6990),
    ("B3", "Kettle 1.0 l", "Gear", 11900),
    ("B7", "Scale", "Gear", 3950),
    ("C1", "Mug · Å", "Mugs", 1290),
    ("C2", "Mug ☕", "Mugs", 1290),
    ("D1", "Gift card", "Gifts", 2500),
    ("D2", "Brewing course", "Gifts", 8900),
)
SEARCHES = ("mug", "espresso", "tasse à café", "кава", "コーヒー", "hand mill", "gift", "decaf 250")
PAGES = (
    ("Home", ""),
    ("Coffee", "coffee"),
    ("Gear", "gear"),
    ("About us", "about"),
    ("Blog", "blog"),
)
PLANS = ("free", "free", "free", "pro", "pro", "team")


def json_text(value: object) -> str:
    """Return JSON as real senders write it: no spaces, letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


PLACE_TEXTS = [
    f'"$city":{json_text(city)},"$region":{json_text(region)},"mp_country_code":"{country}"'.encode()
    for city, region, country, _, _ in PLACES
]
SCREEN_TEXTS = [
    f'"$browser":"{browser}","$browser_version":{version},"$os":"{system}",'
    f'"$screen_height":{height},"$screen_width":{width},"$device":"{device}",'
    f'"mp_lib":"web","$lib_version":"2.56.0"'.encode()
    for browser, version, system, width, height, device in SCREENS
]
REFERRER_TEXTS = [text.encode() for text in REFERRERS]
PRODUCT_TEXTS = [
    (
        f'"product_id":"{key}","product_name":{json_text(name)},"category":"{category}",'
        f'"price":{price / 100:.2f},'
        f'"Tags":{json_text([category.lower(), "new" if price > 2000 else "eu"])}'
    ).encode()
    for key, name, category, price in PRODUCTS
]
PAGE_TEXTS = [
    f'"$current_url":"https://shop.example/{path}","page":"{title}",'
    f'"title":"{title} | shop.example"'.encode()
    for title, path in PAGES
]
SEARCH_TEXTS = [json_text(text).encode() for text in SEARCHES]
CURRENCIES = [place[3].encode() for place in PLACES]
COUNTRIES = [place[2].encode() for place in PLACES]
