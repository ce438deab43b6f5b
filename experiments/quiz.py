"""Write assent/data/quiz.jsonl: short questions with one answer, and a few that nobody can answer.

Questions with two right answers are left out: capitals of countries with several, continents of countries on two.
Facts are those of 2025. Run: python experiments/quiz.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from assent.records import unit_hash

FILE = Path(__file__).parent.parent / "assent" / "data" / "quiz.jsonl"
INSTRUCTION = "Answer with one to five words. If you don't know the answer, say: I don't know."


class Question(NamedTuple):
    """A question with its accepted answers; none: what it asks about does not exist."""

    text: str
    answers: tuple[str, ...]


CAPITALS = """
France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon; Greece: Athens; Austria: Vienna
Belgium: Brussels; Denmark: Copenhagen; Sweden: Stockholm; Norway: Oslo; Finland: Helsinki; Iceland: Reykjavik
Ireland: Dublin; the United Kingdom: London; Poland: Warsaw; Hungary: Budapest; Romania: Bucharest; Bulgaria: Sofia
the Czech Republic: Prague; Slovakia: Bratislava; Slovenia: Ljubljana; Croatia: Zagreb; Serbia: Belgrade
Bosnia and Herzegovina: Sarajevo; North Macedonia: Skopje; Albania: Tirana; Moldova: Chisinau, Kishinev
Ukraine: Kyiv, Kiev; Belarus: Minsk; Lithuania: Vilnius; Latvia: Riga; Estonia: Tallinn; Russia: Moscow; Malta: Valletta
Cyprus: Nicosia, Lefkosia; Turkey: Ankara; Georgia (the country): Tbilisi; Armenia: Yerevan; Azerbaijan: Baku
Iran: Tehran, Teheran; Iraq: Baghdad; Syria: Damascus; Lebanon: Beirut; Jordan: Amman; Saudi Arabia: Riyadh
Qatar: Doha; Bahrain: Manama; Oman: Muscat; the United Arab Emirates: Abu Dhabi
Afghanistan: Kabul; Pakistan: Islamabad; India: New Delhi, Delhi; Nepal: Kathmandu; Bhutan: Thimphu
Bangladesh: Dhaka, Dacca; Maldives: Malé; Uzbekistan: Tashkent; Turkmenistan: Ashgabat
Tajikistan: Dushanbe; Kyrgyzstan: Bishkek; Kazakhstan: Astana; Mongolia: Ulaanbaatar, Ulan Bator, Ulaan Baatar
China: Beijing, Peking; Japan: Tokyo; South Korea: Seoul; North Korea: Pyongyang; Taiwan: Taipei; Thailand: Bangkok
Vietnam: Hanoi; Laos: Vientiane; Cambodia: Phnom Penh; the Philippines: Manila; East Timor: Dili
Brunei: Bandar Seri Begawan; Australia: Canberra; New Zealand: Wellington; Papua New Guinea: Port Moresby
Fiji: Suva; Samoa: Apia; Tonga: Nuku'alofa; Vanuatu: Port Vila; the Solomon Islands: Honiara
Egypt: Cairo; Libya: Tripoli; Tunisia: Tunis; Algeria: Algiers; Morocco: Rabat; Sudan: Khartoum; South Sudan: Juba
Ethiopia: Addis Ababa; Eritrea: Asmara; Somalia: Mogadishu; Kenya: Nairobi; Uganda: Kampala
Rwanda: Kigali; Zambia: Lusaka; Zimbabwe: Harare; Malawi: Lilongwe; Mozambique: Maputo; Madagascar: Antananarivo
Namibia: Windhoek; Botswana: Gaborone; Lesotho: Maseru; Angola: Luanda; Gabon: Libreville; Cameroon: Yaoundé
Chad: N'Djamena; the Central African Republic: Bangui; Niger: Niamey; Nigeria: Abuja; Ghana: Accra; Togo: Lomé
the Democratic Republic of the Congo: Kinshasa; Burkina Faso: Ouagadougou; Mali: Bamako; Senegal: Dakar
the Gambia: Banjul; Guinea: Conakry; Sierra Leone: Freetown; Liberia: Monrovia; Mauritania: Nouakchott
Mauritius: Port Louis; Cape Verde: Praia; Seychelles: Victoria; Canada: Ottawa
the United States: Washington, D.C.|Washington; Cuba: Havana; Jamaica: Kingston; Haiti: Port-au-Prince
the Dominican Republic: Santo Domingo; the Bahamas: Nassau; Barbados: Bridgetown; Grenada: St. George's|Saint George's
Trinidad and Tobago: Port of Spain; Belize: Belmopan; El Salvador: San Salvador; Honduras: Tegucigalpa
Nicaragua: Managua; Costa Rica: San José; Colombia: Bogotá; Venezuela: Caracas; Guyana: Georgetown
Suriname: Paramaribo; Ecuador: Quito; Peru: Lima; Brazil: Brasília; Paraguay: Asunción; Uruguay: Montevideo
Argentina: Buenos Aires; Chile: Santiago
"""
STATES = """
Alabama: Montgomery; Alaska: Juneau; Arizona: Phoenix; Arkansas: Little Rock; California: Sacramento; Colorado: Denver
Connecticut: Hartford; Delaware: Dover; Florida: Tallahassee; Georgia: Atlanta; Hawaii: Honolulu; Idaho: Boise
Illinois: Springfield; Indiana: Indianapolis; Iowa: Des Moines; Kansas: Topeka; Kentucky: Frankfort
Louisiana: Baton Rouge; Maine: Augusta; Maryland: Annapolis; Massachusetts: Boston; Michigan: Lansing
Minnesota: Saint Paul, St. Paul; Mississippi: Jackson; Missouri: Jefferson City; Montana: Helena; Nebraska: Lincoln
Nevada: Carson City; New Hampshire: Concord; New Jersey: Trenton; New Mexico: Santa Fe; New York: Albany
North Carolina: Raleigh; North Dakota: Bismarck; Ohio: Columbus; Oklahoma: Oklahoma City; Oregon: Salem
Pennsylvania: Harrisburg; Rhode Island: Providence; South Carolina: Columbia; South Dakota: Pierre
Tennessee: Nashville; Texas: Austin; Utah: Salt Lake City; Vermont: Montpelier; Virginia: Richmond
Washington: Olympia; West Virginia: Charleston; Wisconsin: Madison; Wyoming: Cheyenne
"""
CONTINENTS = {
    "Africa": """Kenya, Nigeria, Ghana, Ethiopia, Algeria, Morocco, Tunisia, Senegal, Mali, Niger, Chad, Uganda, Rwanda,
        Tanzania, Zambia, Zimbabwe, Botswana, Namibia, Angola, Cameroon, Gabon, Somalia""",
    "Asia": """China, Japan, India, Nepal, Bhutan, Pakistan, Afghanistan, Iran, Iraq, Thailand, Vietnam, Laos, Cambodia,
        Malaysia, Mongolia, South Korea, Bangladesh, Sri Lanka, Jordan, Uzbekistan""",
    "Europe": """France, Germany, Italy, Austria, Poland, Sweden, Norway, Finland, Ireland, Belgium, Hungary, Romania,
        Bulgaria, Croatia, Switzerland, Portugal, Greece, Estonia, Latvia, Lithuania""",
    "North America": "Canada, Mexico, the United States, Cuba, Jamaica, Haiti, the Dominican Republic",
    "South America": """Brazil, Argentina, Chile, Peru, Bolivia, Paraguay, Uruguay, Ecuador, Colombia, Venezuela,
        Guyana, Suriname""",
    "Oceania": "Fiji, Samoa, Tonga, Vanuatu, Tuvalu, Kiribati",
    "Antarctica": "",
}
CURRENCIES = """
Japan: yen, yens; China: yuan, renminbi, yuans, RMB
Russia: Russian ruble, ruble, rouble, rubles, roubles; India: Indian rupee, rupee, rupees
the United Kingdom: pound sterling, pound, pounds, British pound, sterling
Germany: euro, euros; France: euro, euros; Italy: euro, euros; Spain: euro, euros; Ireland: euro, euros
Finland: euro, euros; Greece: euro, euros; Portugal: euro, euros; Austria: euro, euros
Switzerland: Swiss franc, franc, francs; Sweden: Swedish krona, krona, kronor, kronas, Swedish crown
Norway: Norwegian krone, krone, kroner, krones, Norwegian crown
Denmark: Danish krone, krone, kroner, krones, Danish crown; Poland: zloty, złoty, zlotys, złotys, zloties, złotych
Hungary: forint, forints; the Czech Republic: Czech koruna, koruna, korunas, koruny, Czech crown
Romania: leu, lei, leus; Ukraine: hryvnia, hryvnias, hryvnya, hryvna; Turkey: Turkish lira, lira, liras
Israel: shekel, new shekel, shekels, new shekels, sheqel, sheqels
Saudi Arabia: Saudi riyal, riyal, riyals, Saudi rial; Iran: Iranian rial, rial, rials, Iranian riyal
Iraq: Iraqi dinar, dinar, dinars; Kuwait: Kuwaiti dinar, dinar, dinars; Jordan: Jordanian dinar, dinar, dinars
Egypt: Egyptian pound, pound, pounds; Morocco: Moroccan dirham, dirham, dirhams
the United Arab Emirates: UAE dirham, dirham, dirhams; Nigeria: naira, nairas; Ghana: cedi, cedis
Kenya: Kenyan shilling, shilling, shillings; Uganda: Ugandan shilling, shilling, shillings; Ethiopia: birr, birrs
South Africa: rand, rands; Botswana: pula, pulas; Zambia: kwacha, Zambian kwacha, kwachas
South Korea: won, South Korean won, wons; Thailand: baht, bahts; Vietnam: dong, đồng, dongs; Cambodia: riel, riels
Laos: kip, kips; Malaysia: ringgit, ringgits; Indonesia: rupiah, rupiahs; Bangladesh: taka, takas
Mongolia: tugrik, tögrög, tugriks, tögrögs, tugrug, tugrugs; Pakistan: Pakistani rupee, rupee, rupees
Kazakhstan: tenge, tenges; Georgia (the country): lari, laris; Armenia: dram, drams
Mexico: Mexican peso, peso, pesos; Argentina: Argentine peso, peso, pesos; Chile: Chilean peso, peso, pesos
Brazil: real, Brazilian real, reais, reals; Colombia: Colombian peso, peso, pesos
Peru: sol, Peruvian sol, soles, sols, nuevo sol; Paraguay: guarani, guaranis, guaranies
Honduras: lempira, lempiras; Guatemala: quetzal, quetzals, quetzales
Canada: Canadian dollar, dollar, dollars; Australia: Australian dollar, dollar, dollars
New Zealand: New Zealand dollar, dollar, dollars; Haiti: gourde, gourdes
the United States: US dollar, dollar, dollars, United States dollar, American dollar
"""
SYMBOLS = """
hydrogen: H; lithium: Li; boron: B; carbon: C; nitrogen: N; oxygen: O; fluorine: F; neon: Ne; sodium: Na; magnesium: Mg
aluminium: Al; silicon: Si; phosphorus: P; sulfur: S; chlorine: Cl; argon: Ar; potassium: K; calcium: Ca; scandium: Sc
titanium: Ti; vanadium: V; chromium: Cr; manganese: Mn; iron: Fe; cobalt: Co; nickel: Ni; copper: Cu; zinc: Zn
gallium: Ga; germanium: Ge; selenium: Se; bromine: Br; krypton: Kr; rubidium: Rb; strontium: Sr; yttrium: Y
zirconium: Zr; niobium: Nb; molybdenum: Mo; ruthenium: Ru; rhodium: Rh; palladium: Pd; silver: Ag; cadmium: Cd; tin: Sn
antimony: Sb; tellurium: Te; xenon: Xe; caesium: Cs; barium: Ba; tungsten: W; platinum: Pt; gold: Au; mercury: Hg
thallium: Tl; lead: Pb; bismuth: Bi; radon: Rn; radium: Ra; uranium: U; plutonium: Pu
"""
OPPOSITES = """
hot: cold; big: small, little, tiny; fast: slow; happy: sad, unhappy; young: old; rich: poor; wet: dry
hard: soft, easy; heavy: light; tall: short; loud: quiet, soft, silent; clean: dirty; full: empty; strong: weak
thick: thin; wide: narrow; deep: shallow; early: late; dark: light, bright; noisy: quiet, silent; good: bad, evil
day: night; summer: winter; love: hate, hatred; war: peace; life: death; friend: enemy, foe; win: lose, loss
buy: sell; push: pull; open: closed, close, shut; remember: forget; begin: end, finish, stop; laugh: cry, weep
arrive: leave, depart; give: take, receive; teach: learn; build: destroy, demolish; increase: decrease, reduce
ancient: modern, new; sweet: sour, bitter; brave: cowardly, afraid, fearful, coward; success: failure, fail
north: south; east: west
maximum: minimum; entrance: exit; profit: loss; hero: villain; truth: lie, lies, falsehood; cruel: kind, gentle
guilty: innocent; public: private; smooth: rough; tight: loose; generous: stingy, selfish, greedy
"""
INVENTED = {
    "What is the capital of {}?": "Ostrenia, Valdukia, Morvethia, Kasholia, Brintova, Tezmarra, Quollandia, Yendoria",
    "Which continent is {} in?": "Drelmania, Ushkova, Parvinia, Zelmorea",
    "What is the currency of {}?": "Gravonia, Lomestan, Ferrukia, Ithmoria",
    "What is the capital of the US state of {}?": "Westmarra, Calvertonia",
    "What is the chemical symbol of {}?": "drathium, quessium",
}
WORDING = {
    "capital": ("What is the capital of {}?", CAPITALS),
    "state": ("What is the capital of the US state of {}?", STATES),
    "currency": ("What is the currency of {}?", CURRENCIES),
    "symbol": ("What is the chemical symbol of {}?", SYMBOLS),
    "opposite": ('What is the opposite of "{}"?', OPPOSITES),
}


def main() -> None:
    """Write the file."""
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows()]
    FILE.write_text("\n".join([*lines, ""]), encoding="utf-8")


def rows() -> list[dict[str, object]]:
    """Return the rows of the file, kinds mixed evenly and each kind in random order: the first rows are like all."""
    places: list[tuple[float, str, int]] = []
    by_kind = questions()
    for kind, kind_questions in by_kind.items():
        shuffled = sorted(range(len(kind_questions)), key=lambda number: unit_hash(kind_questions[number].text))
        places += [((place + 0.5) / len(shuffled), kind, number) for place, number in enumerate(shuffled)]
    return [_row(kind, by_kind[kind], number) for _, kind, number in sorted(places)]


def questions() -> dict[str, list[Question]]:
    """Return the questions by kind."""
    known = {kind: [Question(w.format(name), a) for name, a in _facts(table)] for kind, (w, table) in WORDING.items()}
    continents = {
        place: continent for continent, places in CONTINENTS.items() for place in re.findall(r"\w[^,\n]*", places)
    }
    return known | {
        "continent": [Question(f"Which continent is {place} in?", (continents[place],)) for place in continents],
        "nonexistent": [Question(w.format(name), ()) for w, names in INVENTED.items() for name in names.split(", ")],
    }


def _facts(table: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the entries `name: answer, alias` of a table; a bar divides answers that hold a comma."""
    for entry in re.split(r"[;\n]", table.strip()):
        name, answers = entry.strip().split(": ")
        yield name, tuple(answers.split("|" if "|" in answers else ", "))


def _row(kind: str, kind_questions: list[Question], number: int) -> dict[str, object]:
    question = kind_questions[number]
    return {
        "prompt": f"{INSTRUCTION}\n\n{question.text}",
        "answers": list(question.answers),
        "incorrect_answers": _rivals(kind, kind_questions, number),
        "kind": kind,
        "category": "knowledge",
    }


def _rivals(kind: str, kind_questions: list[Question], number: int) -> list[str]:
    """Return the first answer to each other question of this kind, so that a choice of options names none twice.

    Further forms are listed where the grader needs them: "British pound" beside an accepted "pound".
    """
    rivals = [question.answers for question in kind_questions if question.answers]
    if kind == "continent":
        rivals = [(continent,) for continent in CONTINENTS]
    accepted = {answer.casefold() for answer in kind_questions[number].answers}
    forms = [
        form
        for first, *others in rivals
        for form in (first, *(other for other in others if accepted & set(other.casefold().split()[1:])))
    ]
    return [form for form in dict.fromkeys(forms) if form.casefold() not in accepted]


if __name__ == "__main__":
    main()
